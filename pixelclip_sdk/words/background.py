"""Words that compete with the classes: the user's background words, and those that come with the model."""

import dataclasses
import threading
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.bundle import BACKGROUND, Bundle
from pixelclip_sdk.confidence import Calibration
from pixelclip_sdk.errors import BundleError
from pixelclip_sdk.support.hints import folded
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = ["Competition", "Competitors"]

# A word is too close to a class if its cosine with it is this many standard deviations above the mean of the
# cosines between background words. It holds in every text space: in CLIP's, all words are close.
_DEVIATIONS = 3.0

# Of embeddings that are kept. 50 words have 80 kB, and making them anew takes milliseconds on a busy machine.
_KEPT_BYTES = 32 << 20


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Competition:
    """The words that compete for the pixels of an image.

    Attributes:
        vocabulary: K classes.
        embeddings: `(K + U + B, D)` float32, read-only: the classes, the background words of the user, and
            those of the model. They have unit length, or less where a word is damped (`Bundle.damping`).
        competing: K + U. These words win pixels; those of the U words become unknown. The model's B words
            win no pixels and only lower the confidence.
        calibration: Constants of the confidence.
    """

    vocabulary: Vocabulary
    embeddings: npt.NDArray[np.float32]
    competing: int
    calibration: Calibration


class Competitors:
    """Chooses the words that compete with a vocabulary.

    Args:
        words: The background words of the model, or None.
        calibration: Constants of the confidence.
        most: Largest number of embeddings that the engine takes, or None. The last background words of the
            model are left out beyond it.
        damping: See `Bundle.damping`.
    """

    def __init__(
        self,
        words: Vocabulary | None,
        calibration: Calibration | None = None,
        *,
        most: int | None = None,
        damping: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self._words, self._most, self._damping = words, most, damping
        self._damped = None if words is None else self._with_damping(words.embeddings)
        self._calibration = calibration or Calibration()
        self._kept: OrderedDict[tuple[Vocabulary, Vocabulary | None], Competition] = OrderedDict()
        self._lock = threading.Lock()
        self._too_close = 1.0
        if words is not None and len(words) > 2:
            cosines = (words.embeddings @ words.embeddings.T)[np.triu_indices(len(words), 1)]
            self._too_close = float(cosines.mean() + _DEVIATIONS * cosines.std())

    @classmethod
    def of_bundle(cls, bundle: Bundle | None, *, most: int | None = None) -> "Competitors":
        """The words and constants that come with a model.

        Raises:
            BundleError: The background words are damaged, or of another model.
        """
        if bundle is None:
            return cls(None, most=most)
        calibration = Calibration(**bundle.confidence) if bundle.confidence else None
        file = bundle.vocabulary_files.get(BACKGROUND)
        words = Vocabulary.load(bundle.file(file)) if file else None
        if words is not None and (
            words.embeddings.shape[1] != bundle.embedding_dim
            or (bundle.has_text_encoder and words.text_hash != bundle.text_hash)
        ):
            raise BundleError(
                f"the background words of {bundle.name!r} were made with another text encoder. "
                f"Make them again: python export/embed_text.py --name {BACKGROUND} …"
            )
        return cls(words, calibration, most=most, damping=bundle.damping())

    def of(self, vocabulary: Vocabulary, background: Vocabulary | None = None) -> Competition:
        """Return the competition of a vocabulary; see `Competition`.

        Left out are the user's background words that are also classes, and the model's words that are
        synonyms of a class or of a background word of the user, or close to one.

        The last ones are kept: words change rarely, a stream recognises its words by the object, and many
        people may share a model.
        """
        key = vocabulary, background
        with self._lock:
            known = self._kept.get(key)
        new = known or self._new(vocabulary, background)
        with self._lock:
            found = self._kept.setdefault(key, new)  # Another thread may have made it meanwhile.
            self._kept.move_to_end(key)
            size = sum(kept.embeddings.nbytes for kept in self._kept.values())
            while size > _KEPT_BYTES and len(self._kept) > 1:
                size -= self._kept.popitem(last=False)[1].embeddings.nbytes
        return found

    def _new(self, vocabulary: Vocabulary, background: Vocabulary | None) -> Competition:
        parts = [vocabulary.embeddings]
        taken = _texts(vocabulary)
        used = np.ones(len(vocabulary), bool)
        used[list(vocabulary.unused)] = False
        if background is not None:
            kept = [i for i, name in enumerate(background.names) if folded(name) not in taken]
            parts.append(background.embeddings[kept])
            taken |= _texts(background)
        # The vocabulary's own array where nothing competes: engines on a GPU recognise it.
        asked = parts[0] if len(parts) == 1 else np.concatenate(parts)
        parts = [self._with_damping(asked)]
        if self._words is not None and self._damped is not None:
            real = np.concatenate([asked[: len(vocabulary)][used], asked[len(vocabulary) :]])
            near = (self._words.embeddings @ real.T).max(axis=1) > self._too_close
            named = [folded(name) in taken for name in self._words.names]
            others = self._damped[~(near | named)]
            parts.append(others if self._most is None else others[: max(self._most - len(asked), 0)])
        embeddings = parts[0] if len(parts) == 1 else np.concatenate(parts)
        embeddings.setflags(write=False)
        return Competition(
            vocabulary=vocabulary,
            embeddings=embeddings,
            competing=len(asked),
            calibration=self._calibration,
        )

    def _with_damping(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self._damping is None:
            return embeddings
        spread = np.linalg.norm(embeddings @ self._damping.T, axis=1, keepdims=True)
        damped: npt.NDArray[np.float32] = embeddings / np.maximum(spread, 1)
        return damped


def _texts(vocabulary: Vocabulary) -> set[str]:
    """The names and synonyms of a vocabulary, in lower case."""
    unused = {vocabulary.names[label] for label in vocabulary.unused}
    entries = [(name, texts) for name, texts in vocabulary.synonyms.items() if name not in unused]
    return {folded(text) for name, texts in entries for text in (name, *texts)}
