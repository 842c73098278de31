"""From photos to an album: detection, landmarks, crop, camera, mask, quality.

Order of imports: graph < detect, landmarks, blendshapes, segment < align, pose, quality < album
< reading < build.
"""
