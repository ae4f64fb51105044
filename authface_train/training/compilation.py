"""Compiles the repeated blocks of SDXL's networks with `torch.compile`."""

from __future__ import annotations

from torch import nn

COMPILED_BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")
"""Blocks in which fused operations save memory traffic. Equal blocks share their compiled code."""
MAX_VARIANTS = 64
"""Compiled variants of a block. SDXL's blocks differ in channels and resolution; torch's default of
8 variants would leave most of them uncompiled."""


def compile_blocks(module: nn.Module) -> None:
    """Compile the repeated blocks of a network, in place; the first step does the work.

    A whole network would take minutes to compile, and gradient checkpointing interrupts it anyway.
    `compile_repeated_blocks` of diffusers does not know the blocks of a ControlNet.

    Args:
        module: A U-Net or a ControlNet.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = MAX_VARIANTS
    for block in module.modules():
        if type(block).__name__ in COMPILED_BLOCKS:
            block.compile()
