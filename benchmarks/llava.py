"""Speed and memory of LLaVA-1.6 captioning: the real architecture with random weights.

    python benchmarks/llava.py          needs a CUDA card with 24 GB, and 15 GB of disk space
    python benchmarks/llava.py --tiny   a tiny model on the CPU, to check that the script runs

Weights are measured in bf16, 8 bits and 4 bits. With random weights every answer has the full 96
tokens, so real checkpoints are faster. Both questions are answered for every crop of 1,024 px.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support")]
BATCH_SIZES = (1, 4, 8, 16, 32)
PROMPT_TOKENS = 3000


def save_random_checkpoint(folder: Path) -> Path:
    """Save llava-v1.6-mistral-7b (CLIP ViT-L/14 at 336 px, Mistral 7B) with random weights.

    Args:
        folder: Where to save it.

    Returns:
        The folder.
    """
    import tiny_llava
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        MistralConfig,
    )

    grid = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    tiny_llava.processor(336, grid).save_pretrained(folder)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
            projection_dim=768,
        ),
        text_config=MistralConfig(
            vocab_size=32064,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=32768,
            rope_theta=1e6,
            sliding_window=None,
        ),
        image_token_index=tiny_llava.SPECIAL_TOKENS.index("<image>"),
        image_grid_pinpoints=grid,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda:0"):
        model = LlavaNextForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = None  # answers never end early
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def main() -> None:
    """Measure each precision and batch size, and print a Markdown table."""
    import numpy as np
    import torch

    from authface_data.captions.llava import LlavaModel

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU")
    tiny = parser.parse_args().tiny
    if not tiny and not torch.cuda.is_available():
        sys.exit("no CUDA card available; use --tiny to run a tiny model on the CPU")

    device = "cpu" if tiny else "cuda:0"
    batch_sizes = (1, 2) if tiny else BATCH_SIZES
    precisions = ("bf16",) if tiny else ("bf16", "8bit", "4bit")
    print("tiny model, CPU" if tiny else torch.cuda.get_device_name(0))
    crops = [
        np.random.default_rng(seed).integers(0, 255, (1024, 1024, 3), np.uint8)
        for seed in range(max(batch_sizes))
    ]
    with tempfile.TemporaryDirectory() as folder:
        if tiny:
            import tiny_llava

            checkpoint = tiny_llava.save(Path(folder))
        else:
            checkpoint = save_random_checkpoint(Path(folder))

        print("| weights | batch size | images/s | peak memory, GiB |\n|---|---|---|---|")
        for precision in precisions:
            model = LlavaModel(str(checkpoint), precision, None)
            model.load(device)
            for batch_size in batch_sizes:
                model._max_batch_size = batch_size
                if not tiny:
                    torch.cuda.reset_peak_memory_stats()
                model.predict(crops[:batch_size])  # warm-up
                if model._affordable_batch_size(PROMPT_TOKENS) < batch_size:
                    print(f"| {precision} | {batch_size} | does not fit | |")
                    break
                started = time.perf_counter()
                model.predict(crops[:batch_size])
                rate = batch_size / (time.perf_counter() - started)
                peak = "" if tiny else f"{torch.cuda.max_memory_allocated() / 2**30:.1f}"
                print(f"| {precision} | {batch_size} | {rate:.2f} | {peak} |", flush=True)
            del model
            if not tiny:
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
