"""`my3dgen prior show`: one prior's sizes, hash and card."""

from dataclasses import dataclass

import tyro

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class PriorShow(Verb):
    """Show a prior's sizes, and those of a person's adapter on it."""

    name: tyro.conf.Positional[str]
    """A prior's name or folder; with --random a preset: mini, tiny, ffhq512-128."""
    random: bool = False
    """Take a preset with random weights; no file is needed."""
    rank: int = 1
    """Rank of the adapter that is counted."""

    def run(self) -> dict:
        """Count the generator's parameters and those of a new adapter."""
        import torch

        from my3dgen.config import PRESETS
        from my3dgen.errors import UserError
        from my3dgen.lora import lora_parameters, new_adapter, trainable_parameters
        from my3dgen.prior.store import CARD, load_prior

        if not 1 <= self.rank <= 64:
            raise UserError(f"--rank {self.rank} is out of range; choose 1 to 64")
        if self.random:
            if self.name not in PRESETS:
                raise UserError(f"unknown preset '{self.name}'; choose one of {', '.join(PRESETS)}")
            from my3dgen.prior.generator import Generator

            generator, sha256, card, directions = Generator(PRESETS[self.name]), None, None, []
            name = self.name
        else:
            prior = load_prior(self.name)
            generator, sha256, directions = prior.generator, prior.sha256, sorted(prior.directions)
            path = prior.folder / CARD
            card = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
            name = prior.name
        adapter = new_adapter(generator, self.rank, float(self.rank), torch.Generator().manual_seed(0))
        lora = sum(tensor.numel() for tensor in lora_parameters(adapter))
        trainable = sum(tensor.numel() for tensor in trainable_parameters(adapter))
        result = {
            "name": name,
            "random": self.random,
            "parameters": generator.parameter_count,
            "rank": self.rank,
            "lora_parameters": lora,
            "trainable_parameters": trainable,
            "sha256": sha256,
            "directions": directions,
            "config": generator.config.to_dict(),
        }
        if not self.json:
            print(f"{name}: {result['parameters']:,} parameters, sha256 {sha256 or 'none (random weights)'}")
            print(f"a person at rank {self.rank}: {lora:,} in LoRA matrices, {trainable:,} trained in all")
            print(f"edit directions: {', '.join(directions) or 'none'}")
            if card:
                print(f"\n{card}")
        return result
