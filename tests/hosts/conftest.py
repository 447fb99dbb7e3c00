"""The devices of these tests."""

from device_fixtures import board, doubling, phone, sshd

__all__ = ["board", "doubling", "phone", "sshd"]
