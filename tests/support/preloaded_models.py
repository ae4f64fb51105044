"""Fills caches on import that processes forked afterwards share: dlib's model, CLIP's vocabulary."""

import tempfile
from contextlib import suppress

import torch

from authface_data.faces.landmarks import Dlib68
from authface_train.models.sdxl import tiny_sdxl
from manifests.support.errors import MissingResourceError

torch.set_num_threads(1)  # a forked thread pool deadlocks

# Without a file the tests that need it are skipped or fail by themselves.
with suppress(MissingResourceError):
    Dlib68().setup(None)

# Saving compiles the regular expressions by which transformers renames weights.
with suppress(MissingResourceError), tempfile.TemporaryDirectory() as folder:
    tiny_sdxl(0).save_pretrained(folder)
