"""Personal 3D face models: photos in, a small file out, and everything that file can do."""

__version__ = "0.1.0"
