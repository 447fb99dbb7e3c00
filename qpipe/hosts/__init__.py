"""Devices: where engines of a target run when that is not here. ssh, adb and an emulator, called as programs."""
