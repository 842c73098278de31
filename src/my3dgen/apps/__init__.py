"""What a person's model is for: pictures, turning videos, in-betweens, new looks, edits, meshes."""
