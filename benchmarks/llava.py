"""How fast LLaVA-1.6 captions, and in how much memory: its true architecture with random weights, in bf16, 8 and 4 bits.

    python benchmarks/llava.py            needs a CUDA card with 24 GB, and 15 GB of disk for the random checkpoint
    python benchmarks/llava.py --tiny     the same with a tiny model on the CPU: to see that it runs

Random weights say nothing worth reading, and take as long to say it: every answer has its full 96 tokens, so true ones come
sooner. Both questions are asked of every crop of 1,024 px.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support")]
BATCHES = (1, 4, 8, 16, 32)


def checkpoint(folder: Path) -> Path:
    """llava-v1.6-mistral-7b from configuration: CLIP ViT-L/14 at 336 px, Mistral 7B."""
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
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
            patch_size=14, projection_dim=768,
        ),
        text_config=MistralConfig(
            vocab_size=32064, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
            num_key_value_heads=8, max_position_embeddings=32768, rope_theta=1e6, sliding_window=None,
        ),
        image_token_index=tiny_llava.WORDS.index("<image>"),
        image_grid_pinpoints=grid,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda:0"):
        model = LlavaNextForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = None  # never done before its time
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def main() -> None:
    import numpy as np
    import torch

    from authface_data.captions.llava import LlavaStage
    from manifests.settings import Captions

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU")
    tiny = parser.parse_args().tiny
    if not tiny and not torch.cuda.is_available():
        sys.exit("no CUDA card here: --tiny runs the same on the CPU")
    device = "cpu" if tiny else "cuda:0"
    print("tiny model, CPU" if tiny else torch.cuda.get_device_name(0))
    crops = [
        np.random.default_rng(n).integers(0, 255, (1024, 1024, 3), np.uint8)
        for n in range(2 if tiny else max(BATCHES))
    ]
    with tempfile.TemporaryDirectory() as folder:
        if tiny:
            import tiny_llava

            where = tiny_llava.save(Path(folder))
        else:
            where = checkpoint(Path(folder))
        print("| weights | crops at once | images/s | peak memory, GiB |\n|---|---|---|---|")
        for precision in ("bf16",) if tiny else ("bf16", "8bit", "4bit"):
            stage = LlavaStage(
                Captions.model_validate({"model": str(where), "precision": precision}), None
            )
            stage.setup(device)
            for batch in (1, 2) if tiny else BATCHES:
                stage._at_once = batch
                if not tiny:
                    torch.cuda.reset_peak_memory_stats()
                stage.answers(crops[:batch])  # once to warm up
                if min(stage._at_once, stage._fits(3000)) < batch:
                    print(f"| {precision} | {batch} | does not fit | |")
                    break
                started = time.perf_counter()
                stage.answers(crops[:batch])
                rate = batch / (time.perf_counter() - started)
                peak = "" if tiny else f"{torch.cuda.max_memory_allocated() / 2**30:.1f}"
                print(f"| {precision} | {batch} | {rate:.2f} | {peak} |", flush=True)
            del stage
            if not tiny:
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
