"""Finds faces, locates their landmarks, and aligns them the way FFHQ was."""
