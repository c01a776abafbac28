"""An encoder that somebody trained already: a local folder in the Hugging Face layout (`config.json`,
`*.safetensors`), built by the package `transformers`. Texts and pictures.

Nothing is fetched, nothing pickled is read (`pytorch_model.bin` is refused), and no code that lies in the
folder is run. A text's feature must cut as the model was taught to: `given: {content_of:
folder/tokenizer.json}`. Once trained, the weights are the run's own: the folder is needed to build the model
again, not to answer with its bundle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.core.errors import UserError
from penstock.core.optional import require
from penstock.core.regular import refuse_special
from penstock.parts.encoders._pictures import not_pictures
from penstock.parts.encoders._sequences import unreadable

if TYPE_CHECKING:
    from torch import nn


class PretrainedEncoder(Encoder):
    """A model from a folder.

    Reads `tokens [B, T]`, `mask [B, T]`, or `pixels [B, C, H, W]` and, if there, `missing [B]`.
    """

    path: str
    """The folder, relative to the recipe."""
    freeze: bool = False
    """Its weights stay as they are: quick, and safest where rows are few."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Each layer learns this much more slowly than the one above it; 0.8 or so forgets less of what was
    learnt before.
    """
    pooling: Literal["mean", "first"] = "mean"
    """A row in one vector: the mean of its tokens, or the first token (what BERT and ViT put before the
    others).
    """

    def at(self, base: Path) -> Self:
        return self.model_copy(update={"path": str(base / self.path)})

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        wrong = (
            unreadable("pretrained", spec)
            if "tokens" in spec
            else not_pictures("pretrained", spec)
        )
        if wrong or "grams" in spec:
            return (
                wrong
                or "pretrained has no use for `grams`. Leave them out of the feature"
            )
        try:
            config = self._config()
        except UserError as error:
            return error.message
        if "tokens" in spec:
            return self._cuts_otherwise(spec["tokens"], config)
        return self._looks_otherwise(spec["pixels"], config)

    def _cuts_otherwise(
        self, tokens: TensorSpec, config: Mapping[str, Any]
    ) -> str | None:
        # Ids below `first` stand for padding and unknown, and are no words of the
        # model's.
        own = int(tokens.cardinality or 0) - int(tokens.facts.get("first", 2))
        words, longest = config.get("vocab_size"), config.get("max_position_embeddings")
        if words is None:
            return (
                f"{self.path} is not a model of texts: its config.json has no vocab_size"
            )
        # An id beyond the model's table would fail in the middle of training.
        if own > words:
            return (
                f"the feature has {own:,} different tokens, and the model in {self.path} knows {words:,}."
                " Give the feature its tokenizer: `given: {content_of: …/tokenizer.json}`"
            )
        if longest and tokens.facts.get("length", 0) > longest:
            return (
                f"the feature keeps {tokens.facts['length']:,} tokens, and the model in {self.path} takes"
                f" {longest:,} at most. Set the feature's `length`"
            )
        return None

    def _looks_otherwise(
        self, pixels: TensorSpec, config: Mapping[str, Any]
    ) -> str | None:
        size, channels = config.get("image_size"), config.get("num_channels", 3)
        wanted = (
            channels,
            *((size, size) if isinstance(size, int) else size or pixels.shape[1:]),
        )
        if tuple(pixels.shape) != tuple(wanted):
            return (
                f"the feature's pictures are {list(pixels.shape)}, and the model in {self.path} takes"
                f" {list(wanted)}. Set the feature's `size` and `channels`"
            )
        return None

    def _config(self) -> dict[str, Any]:
        """What config.json says.

        Raises:
            UserError: there is no such folder, or it is not in the layout.
        """
        folder = Path(self.path)
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {self.path}. Models are not downloaded: put one there"
                " first"
            )
        # A pipe or device among the files would block whoever opens it.
        for file in folder.iterdir():
            if not file.is_dir() and file.exists():
                refuse_special(file, error=UserError)
        if not any(folder.glob("*.safetensors")):
            pickled = sorted(p.name for p in folder.glob("*.bin"))
            why = (
                f"only {pickled[0]}, which is a pickle and is never loaded. Save it again with"
                " safe_serialization=True"
                if pickled
                else "no weights"
            )
            raise UserError(
                f"{self.path} must hold weights as *.safetensors; found {why}"
            )
        try:
            config: dict[str, Any] = json.loads(
                (folder / "config.json").read_text("utf-8")
            )
        except (OSError, ValueError):
            raise UserError(
                f"{self.path} has no config.json that can be read: it is not a folder in the"
                " Hugging Face layout"
            ) from None
        return config

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from penstock.nn.pretrained import PretrainedPicture, PretrainedText

        ((name, spec),) = features.items()
        config = self._config()
        transformers = require(
            "transformers",
            extra="pretrained",
            why="an encoder that was trained elsewhere",
        )
        try:
            model = transformers.AutoModel.from_pretrained(
                # Nothing is fetched, nothing unpickled, no code of the folder run.
                self.path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"transformers cannot build the model in {self.path}: {str(error).splitlines()[0]}"
            ) from None
        # Convolutional models tell a width for each stage; the last one is what comes
        # out.
        hidden = (
            getattr(model.config, "hidden_size", None) or model.config.hidden_sizes[-1]
        )
        common = {"frozen": self.freeze, "decay": self.layer_decay}
        if "tokens" in spec:
            return PretrainedText(
                # Checkpoints may be in half precision; training starts in float32.
                name,
                model.float(),
                hidden,
                width,
                self.pooling,
                first=int(spec["tokens"].facts.get("first", 2)),
                unknown=self._unknown(config),
                **common,
            )
        channels = int(spec["pixels"].shape[0] or 3)
        mean, std = self._scaling(channels)
        return PretrainedPicture(
            name,
            model.float(),
            hidden,
            width,
            self.pooling,
            mean=mean,
            std=std,
            missing="missing" in spec,
            **common,
        )

    def _unknown(self, config: Mapping[str, Any]) -> int:
        """The model's own id of an unknown token: as its tokenizer says, otherwise that of its padding."""
        try:
            tokenizer = json.loads(
                (Path(self.path) / "tokenizer.json").read_text("utf-8")
            )["model"]
            # Tokenizers of other kinds keep no such table.
            return int(tokenizer["vocab"][tokenizer["unk_token"]])
        except (OSError, ValueError, KeyError, TypeError):
            return int(config.get("pad_token_id") or 0)

    def _scaling(self, channels: int) -> tuple[list[float], list[float]]:
        """Mean and deviation of pixels from 0 to 1 that the model was taught with; 0.5 and 0.5 where it does
        not say.
        """
        try:
            config = json.loads(
                (Path(self.path) / "preprocessor_config.json").read_text("utf-8")
            )
        except OSError:
            config = {}
        return config.get("image_mean") or [0.5] * channels, config.get("image_std") or [
            0.5
        ] * channels
