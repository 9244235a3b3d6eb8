"""PixelCLIP's training step: photos and unlabelled masks in, a loss out.

`PixelCLIP.forward` follows section 3 of the paper (arXiv 2409.19846): the teacher gives one feature per mask,
class prompts give the clusters, masks are clustered and merged, and the mask decoder learns the merged masks
from the student's cosine maps. Inference needs only the student and the text tower.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.words.vocabulary import Classes, Vocabulary
from training.data.photos import Batch
from training.method.clustering import centred, merge, perplexity, pool_masks, sinkhorn
from training.method.decoder import MaskDecoder, covered_bce
from training.method.prompts import ClassPrompts
from training.method.teacher import Teacher
from training.models.clip.vit import DenseViT
from training.models.dense import DenseImageEncoder
from training.models.pair import EncoderPair
from training.models.runtime import TorchTextEncoder
from training.support import distributed

__all__ = ["PixelCLIP", "dense_features"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


class PixelCLIP(nn.Module):
    """Student, teacher, prompts and mask decoder. Student and text tower share the pair's parameters.

    The text tower is frozen. `classes` is the kind of clusters: ``"prompts"`` as in the paper; ``"words"``,
    prompts that keep their random initial words; ``"vectors"``, free vectors without a text tower; or
    ``"names"``, fixed embeddings of `names`. Without `clustering`, every mask is its own class, with the
    teacher's feature as its vector: our reading of an ablation that the paper does not describe. See
    `training.runs.config.Config` for the other settings.
    """

    def __init__(
        self,
        pair: EncoderPair,
        *,
        trainable: str,
        clusters: int = 64,
        words: int = 4,
        templates: Sequence[str] = ("A photo of a {} in the scene",),
        epsilon: float = 0.01,
        classes: Literal["prompts", "words", "vectors", "names"] = "prompts",
        names: Classes | None = None,
        clustering: bool = True,
        centre: bool = False,
        queue: int = 0,
        decoder_width: int = 64,
        batch_norm: Literal["frozen", "updated"] = "frozen",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.student = pair.image.requires_grad_(False)
        self.text = pair.text.requires_grad_(False)
        self.prompts: ClassPrompts | None = None
        self.vectors: nn.Parameter | None = None
        if classes == "names":
            if not names:
                raise PixelClipError("classes of kind names need names: a list's name, a file, or the words")
            vocabulary = Vocabulary.encode(names, TorchTextEncoder(pair, templates))
            self.vectors = nn.Parameter(torch.tensor(vocabulary.embeddings), requires_grad=False)
        elif classes == "vectors":
            generator = torch.Generator().manual_seed(seed)
            start = F.normalize(torch.randn(clusters, pair.dim, generator=generator), dim=-1)
            self.vectors = nn.Parameter(start, requires_grad=clustering)
        else:
            self.prompts = ClassPrompts(
                self.text,
                pair.tokenizer,
                count=clusters,
                length=words,
                templates=templates,
                seed=seed,
                learnable=clustering and classes == "prompts",
            )
        self.queue = queue
        if queue:
            # The teacher's unit features, newest first, equal in all processes.
            self.register_buffer("bank", torch.zeros(queue, pair.dim))
            self.register_buffer("banked", torch.zeros((), dtype=torch.int64))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.decoder = MaskDecoder(decoder_width)
        self.teacher = Teacher(self.student)
        for parameter in _matching(self.student, trainable):
            parameter.requires_grad_(True)
        self.epsilon, self.clustering, self.centre, self.batch_norm = epsilon, clustering, centre, batch_norm
        self.train()

    def train(self, mode: bool = True) -> PixelCLIP:
        """Set the mode as in torch; the encoders stay in evaluation mode, except updated batch norms."""
        super().train(mode)
        for encoder in (self.student, self.text, self.teacher):
            encoder.eval()
        if self.batch_norm == "updated":
            for module in self.student.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.train(mode)
        return self

    def groups(self) -> list[dict[str, Any]]:
        """Return the trained parameters in groups for an optimiser, each with `name` and `params`.

        The names are decoder, encoder and prompts; a name may occur twice, once without weight decay. As in
        the official code, norms have no weight decay. Nor has the attention of a ViT's last block: its unused
        queries and keys are in one tensor with the values, and weight decay would change them.
        """
        modules = [*self.decoder.modules(), *self.student.modules()]
        norms = [p for m in modules if isinstance(m, _NORMS) for p in m.parameters(recurse=False)]
        undecayed = {id(parameter) for parameter in norms}
        tower = getattr(self.student, "tower", None)
        if isinstance(tower, DenseViT):
            attention = tower.visual.transformer.resblocks[-1].attn
            undecayed |= {id(attention.in_proj_weight), id(attention.in_proj_bias)}
        words = None if self.prompts is None else self.prompts.words
        groups: list[dict[str, Any]] = []
        for name, parameters in (
            ("decoder", [*self.decoder.parameters()]),
            ("encoder", [*self.student.parameters()]),
            ("prompts", [words, self.vectors]),
        ):
            trained = [p for p in parameters if p is not None and p.requires_grad]
            groups += [
                {"name": name, "params": [p for p in trained if id(p) not in undecayed]},
                {"name": name, "params": [p for p in trained if id(p) in undecayed], "weight_decay": 0.0},
            ]
        return [group for group in groups if group["params"]]

    def clusters(self) -> Tensor:
        """Return the cluster embeddings: float32 `[k, D]`, unit rows."""
        if self.vectors is not None:
            embeddings = F.normalize(self.vectors, dim=-1)
        else:
            assert self.prompts is not None
            embeddings = self.prompts(self.text)
        return centred(embeddings) if self.centre else embeddings

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and scalars to report.

        These are `masks`, their number over all processes; `clusters`, the effective number in use; and
        `margin`, the mean cosine of masks to their cluster minus that to all clusters.
        """
        with torch.no_grad():
            teacher_features = dense_features(self.teacher.encoder, batch.images)
        features = dense_features(self.student, batch.student_images)
        clusters = self.clusters() if self.clustering else None
        # Cosines differ in their second digit, which half precision would round.
        with torch.autocast(batch.images.device.type, enabled=False):
            features = F.normalize(features.float(), dim=-1)
            with torch.no_grad():
                pooled = F.normalize(pool_masks(teacher_features, batch.masks, batch.counts), dim=-1)
            if clusters is None:
                owner = torch.repeat_interleave(
                    torch.arange(len(batch.counts), device=pooled.device),
                    torch.tensor(batch.counts, device=pooled.device),
                )
                maps = torch.einsum("mhwd,md->mhw", features[owner], pooled)
                targets = batch.masks
                stats = {"masks": distributed.total(pooled.new_tensor(len(pooled)))}
                covered = merge(batch.masks, torch.zeros_like(owner), batch.counts, 1)[owner, 0]
            else:
                maps = torch.einsum("nhwd,kd->nkhw", features, clusters).flatten(0, 1)
                targets, stats = self._targets(pooled, clusters.detach(), batch)
                covered = targets.any(1, keepdim=True)
        logits = self.decoder(maps).float()
        size = batch.masks.shape[1:]
        if logits.shape[1:] != size:
            logits = F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        loss = covered_bce(logits.view(targets.shape), targets, covered)
        return loss, stats

    @torch.no_grad()
    def assign(self, pooled: Tensor, clusters: Tensor) -> Tensor:
        """Return each mask's cluster, int64 `[M]`, balanced over the masks of all processes and of the queue.

        `pooled` are the teacher's features of this process's masks, float32 `[M, D]`, `clusters` float32
        `[k, D]`; both have unit rows.
        """
        balanced = pooled
        # Sinkhorn sums over processes, and all have the same queue: only the first adds it.
        if self.queue and distributed.rank() == 0:
            balanced = torch.cat([pooled, self.bank[: int(self.banked)]])
        return sinkhorn(balanced @ clusters.T, self.epsilon)[: len(pooled)].argmax(-1)

    @torch.no_grad()
    def _targets(self, pooled: Tensor, clusters: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the merged masks, bool `[N, k, R, R]`, of features `[M, D]`, and the scalars to report."""
        similarity = pooled @ clusters.T
        assigned = self.assign(pooled, clusters)
        if self.queue:  # The features of all processes go to its head.
            newest = torch.cat([distributed.gathered(pooled), self.bank[: int(self.banked)]])[: self.queue]
            self.bank[: len(newest)] = newest
            self.banked.fill_(len(newest))
        margins = similarity.gather(1, assigned[:, None])[:, 0] - similarity.mean(1)
        masks, margin = distributed.total(torch.stack([torch.ones_like(margins).sum(), margins.sum()]))
        stats = {
            "masks": masks,
            "clusters": perplexity(assigned, len(clusters)),
            "margin": margin / masks.clamp(min=1),
        }
        return merge(batch.masks, assigned, batch.counts, len(clusters)), stats


def dense_features(encoder: nn.Module, images: Tensor) -> Tensor:
    """Return an image encoder's features on its own grid, differentiable: float `[N, h, w, D]`.

    Images are `[N, 3, H, W]`, RGB 0-255, with sides that are multiples of the encoder's stride. CLIP's
    features are not normalised, so that patches with a large norm weigh more in a mask's mean.
    """
    if isinstance(encoder, DenseImageEncoder):
        # `encode_image` would resize to the 64×64 grid of the evaluation protocol.
        return encoder.tower((images - encoder.mean) / encoder.std)
    return encoder.encode_image(images.permute(0, 2, 3, 1))


def _matching(encoder: nn.Module, pattern: str) -> list[nn.Parameter]:
    """Return the parameters with a name that matches a regular expression."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise PixelClipError(f"trainable is {pattern!r}, which is no regular expression: {error}") from error
    named = dict(encoder.named_parameters())
    found = [parameter for name, parameter in named.items() if expression.search(name)]
    if not found:
        raise PixelClipError(
            f"trainable is {pattern!r}, which matches none of the image encoder's {len(named)} parameters; "
            f"an example is {next(iter(named))}"
        )
    return found
