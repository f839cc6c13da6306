"""Finished cells as one ZIP file, to publish and to read back: written the same every time, trusted in nothing."""
