"""The devices of these tests."""

from device_fixtures import board, doubling, full_disk, phone, sshd

__all__ = ["board", "doubling", "full_disk", "phone", "sshd"]
