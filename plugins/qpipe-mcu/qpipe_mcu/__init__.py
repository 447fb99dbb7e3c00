"""Microcontroller engines: tflite-micro and Ethos-U."""
