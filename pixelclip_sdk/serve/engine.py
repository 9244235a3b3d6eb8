"""Engine: the loaded models, their vocabularies, and the queue in front of them.

All methods are called in the event loop's thread. What computes runs in worker threads; the requests that
wait for one are in `Engine._waiting`, in the order in which they came.
"""

import asyncio
import dataclasses
import functools
import hashlib
import json
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pixelclip_sdk.errors import BundleError, VocabularyError
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.serve.config import Limits
from pixelclip_sdk.serve.errors import ServeError
from pixelclip_sdk.serve.metrics import Metrics
from pixelclip_sdk.support.hints import find_name
from pixelclip_sdk.words.classes import check_list_name, class_list, class_lists, parse_classes
from pixelclip_sdk.words.formats import parse_line
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = ["Engine", "Model", "Words"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

Words = str | list[Any] | dict[str, Any]
"""Words as a client sends them: ``"cat, sofa"``, a list, ``{"sofa": ["sofa", "couch"]}``, the name of a list,
or the id of a vocabulary."""

_ID = "voc_"
# Longer text has more than the allowed words, or names that are too long.
_CHARACTERS = 100


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded model and its name."""

    name: str
    segmenter: Segmenter


@dataclasses.dataclass(eq=False)
class _Job:
    call: Callable[[], Any]
    answer: "asyncio.Future[Any]"
    queued_at: float


class Engine:
    """The models of a server. Requests of all clients share them.

    Args:
        segmenters: Name → segmenter, at least one; the first is the default. The engine closes them. Their
            words, if they have any, are those of requests that name none.
        limits: How much runs, waits and is kept.
        metrics: Counts what is done.
    """

    def __init__(self, segmenters: Mapping[str, Segmenter], limits: Limits, metrics: Metrics) -> None:
        self.models = {name: Model(name, segmenter) for name, segmenter in segmenters.items()}
        self.default = next(iter(self.models))
        self.limits = limits
        self.metrics = metrics
        self.running = 0
        self._waiting: deque[_Job] = deque()
        self._workers = ThreadPoolExecutor(limits.workers, thread_name_prefix="pixelclip-serve")
        self._vocabularies: OrderedDict[tuple[str, str], Vocabulary] = OrderedDict()
        self._parsed = functools.lru_cache(limits.vocabularies)(self._identified)
        self._first = {name: _first_words(segmenter) for name, segmenter in segmenters.items()}
        self._draining = False
        metrics.watch(lambda: len(self._waiting), lambda: self.running, lambda: len(self._vocabularies))

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a worker."""
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether new requests are answered: not while the server stops."""
        return not self._draining

    def model(self, name: str | None = None) -> Model:
        """Return a model by name; None for the default. Raises ServeError 404."""
        found = self.models.get(self.default if name is None else name)
        if found is None:
            raise ServeError(
                404, f"no model {str(name)[:100]!r} is served; expected one of {', '.join(self.models)}"
            )
        return found

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in a worker thread and return its result.

        Raises:
            ServeError: 503, because too many requests wait or the deadline has passed.
        """
        loop = asyncio.get_running_loop()
        if self._draining:
            raise ServeError(503, "the server is stopping; ask another one", retry_after_s=5)
        if len(self._waiting) >= self.limits.waiting and self.running >= self.limits.workers:
            self.metrics.shed.inc()
            raise ServeError(
                503,
                f"{len(self._waiting)} requests wait already; ask again in a second",
                retry_after_s=1,
            )
        job = _Job(function, loop.create_future(), time.perf_counter())
        self._waiting.append(job)
        self._start()
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                answer: T = await job.answer
                return answer
        except TimeoutError:
            self.metrics.shed.inc()
            raise ServeError(
                503, f"no result within {self.limits.deadline_s:g} s; ask again later", retry_after_s=2
            ) from None
        finally:  # Also when the client has gone.
            if job in self._waiting:
                self._waiting.remove(job)

    def _start(self) -> None:
        """Give waiting jobs to idle workers."""
        while self._waiting and self.running < self.limits.workers:
            job = self._waiting.popleft()
            if job.answer.done():
                continue
            self.running += 1
            self.metrics.queue_seconds.observe(time.perf_counter() - job.queued_at)
            done = asyncio.get_running_loop().run_in_executor(self._workers, job.call)
            done.add_done_callback(functools.partial(self._end, job))

    def _end(self, job: _Job, done: "asyncio.Future[Any]") -> None:
        self.running -= 1
        error = None if done.cancelled() else done.exception()
        if not job.answer.done():
            if done.cancelled():
                job.answer.cancel()
            elif error is not None:
                job.answer.set_exception(error)
            else:
                job.answer.set_result(done.result())
        self._start()

    async def warm_up(self) -> None:
        """Run every part of every model once in every worker, so that the first requests are not slower.

        It takes as long as it takes: a slow machine starts late, and then answers in time.
        """
        loop = asyncio.get_running_loop()
        for model in self.models.values():
            warm = functools.partial(_warm_up, model.segmenter)
            calls = (loop.run_in_executor(self._workers, warm) for _ in range(self.limits.workers))
            await asyncio.gather(*calls)

    def first_words(self, model: Model) -> tuple[str, Vocabulary] | None:
        """Return the words of requests that name none, with their id; None if there are none."""
        return self._first[model.name]

    async def embed(self, model: Model, words: Words) -> Vocabulary:
        """Return the vocabulary of a client's words, computed once and kept for a while.

        Raises:
            ServeError: 404 for an unknown id, 413 for too many words, 503 as in `run`.
            VocabularyError: The words cannot be used.
        """
        return (await self.keep(model, words))[1]

    async def keep(self, model: Model, words: Words) -> tuple[str, Vocabulary]:
        """Like `embed`; also returns the id, under which a client gets the vocabulary for a while."""
        if isinstance(words, str) and words.startswith(_ID):
            return words, self.kept(model, words)
        # Most clients send the same text with each image.
        key, classes = (
            self._parsed(model, words) if isinstance(words, str) else self._identified(model, words)
        )
        vocabulary = self._vocabularies.get((model.name, key))
        if vocabulary is None:
            vocabulary = await self.run(functools.partial(model.segmenter.embed, classes))
        self._vocabularies[model.name, key] = vocabulary
        self._vocabularies.move_to_end((model.name, key))
        while len(self._vocabularies) > self.limits.vocabularies:
            self._vocabularies.popitem(last=False)
        return key, vocabulary

    def kept(self, model: Model, key: str) -> Vocabulary:
        """Return the vocabulary with an id. Raises ServeError 404."""
        first = self._first[model.name]
        if first is not None and first[0] == key:
            return first[1]
        found = self._vocabularies.get((model.name, key))
        if found is None:
            raise ServeError(
                404,
                f"model {model.name} has no vocabulary {key[:40]!r}: ids are forgotten when the server "
                f"restarts and after {self.limits.vocabularies} others. POST the words to /v1/vocabularies",
            )
        self._vocabularies.move_to_end((model.name, key))
        return found

    def _identified(self, model: Model, words: Words) -> tuple[str, str | dict[str, tuple[str, ...]]]:
        """Return the id of words and what `_checked` returns."""
        classes = self._checked(model, words)
        text = json.dumps([model.name, classes], ensure_ascii=False)
        return _ID + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24], classes

    def _checked(self, model: Model, words: Words) -> str | dict[str, tuple[str, ...]]:
        """Return the name of a list, or name → synonyms. Text is never taken for a path."""
        most = self.limits.words
        # Checked first, because parsing and normalising millions of words takes seconds.
        if _size(words) > (most if not isinstance(words, str) else most * _CHARACTERS):
            raise ServeError(413, f"got more than {most} words; this server takes at most {most}")
        if isinstance(words, str):
            bundle = model.segmenter.bundle
            precomputed = find_name(words.strip(), bundle.vocabularies if bundle else ())
            if precomputed:
                return precomputed
            if name := find_name(words.strip(), class_lists()):
                classes = class_list(name)
            else:
                check_list_name(words, class_lists())
                classes = parse_classes(parse_line(words))
        else:
            classes = parse_classes(words)
        count = sum(len({name, *texts}) for name, texts in classes.items())
        if count > most:
            raise ServeError(413, f"got {count} words with synonyms; this server takes at most {most}")
        return classes

    async def drain(self) -> None:
        """Refuse new requests, and wait until those that were taken are answered."""
        self._draining = True
        while self.running or self._waiting:
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Release the models, after the requests that run."""
        self._workers.shutdown(wait=True, cancel_futures=True)
        for model in self.models.values():
            model.segmenter.close()
        _log.info("models closed")


def _size(words: Words) -> int:
    """Characters of a text, or number of the texts of a list or mapping."""
    if isinstance(words, dict):
        return sum(1 if isinstance(texts, str) else len(texts) for texts in words.values())
    return len(words)


def _first_words(segmenter: Segmenter) -> tuple[str, Vocabulary] | None:
    """The words that a segmenter has, with an id."""
    try:
        vocabulary = segmenter.vocabulary
    except VocabularyError:  # No words were set.
        return None
    content = json.dumps(vocabulary.names).encode() + vocabulary.embeddings.tobytes()
    return _ID + hashlib.sha256(content).hexdigest()[:24], vocabulary


def _warm_up(segmenter: Segmenter) -> None:
    try:
        vocabulary = segmenter.embed(["object"])
    except BundleError:  # It has no text encoder.
        return
    segmenter.with_classes(vocabulary).warm_up()
