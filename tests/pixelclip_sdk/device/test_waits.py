"""Every copy, event and wait of the pipeline is needed: without one, a tour of its uses has other results."""

import dataclasses
import gc

import numpy as np
import pytest
from host_gpu.arrays import InterfaceArray
from host_gpu.cuda import HostCuda
from host_gpu.kernels import compiler
from host_gpu.machine import machine

from pixelclip_sdk import Segmenter, Smoother, Vocabulary

SMALL = {"input_size": (96, 128), "threads": 1}


def tour(cuda: HostCuda, frames: list[np.ndarray], words: list[Vocabulary]) -> list[np.ndarray]:
    """Labels along edges, and other arrays, of frames on the host and on the GPU."""
    results = []
    with Segmenter.from_pretrained("pixelclip-lite", backend="onnx-cuda", classes=words[0], **SMALL) as one:
        # Words change between frames: of the host, whose labels are there; of the GPU, which are under way.
        for frame, vocabulary in zip(frames, words, strict=True):
            one.set_classes(vocabulary)
            results.append(one.predict(frame).labels)
        under_way = []
        for vocabulary in words:
            one.set_classes(vocabulary)
            under_way.append(one.predict(InterfaceArray(cuda, frames[0])))
        results += [result.labels for result in under_way]
        # A frame that its producer has not written yet, and overwrites when it was read.
        stream = cuda.cudaStreamCreateWithFlags(1)[1]
        given = InterfaceArray(cuda, frames[0], stream=stream)
        results.append(one.predict(given).image)
        result = one.predict(given)
        given.write(frames[1])
        cuda.run(stream)
        results += [result.labels, result.scores, result.logits]
        # Other libraries read labels at once, or late, while the next frame is under way.
        for protocol, late in (("dlpack", False), ("dlpack", True), ("interface", True)):
            labels = one.predict(InterfaceArray(cuda, frames[not late])).labels_on_device
            memory = cuda.at(labels._address, results[0].size, "device").reshape(results[0].shape)
            if protocol == "dlpack":
                kept = labels.__dlpack__(stream=stream)
            else:
                kept = labels.__cuda_array_interface__
                _, event = cuda.cudaEventCreateWithFlags(0)
                cuda.cudaEventRecord(event, kept["stream"])
                cuda.cudaStreamWaitEvent(stream, event, 0)
            copy = np.empty_like(results[0])
            cuda.start(stream, lambda copy=copy, memory=memory: np.copyto(copy, memory))
            if not late:
                cuda.run(stream)
            del labels, kept
            gc.collect()
            results.append(one.predict(InterfaceArray(cuda, frames[late])).labels)
            cuda.run(stream)
            results.append(copy)
        # Frames of a video that changes in one corner. Results of some are dropped before their work is done.
        smoother = Smoother(0.3)
        for i in range(4):
            frame = frames[0].copy()
            frame[: 4 * i, : 4 * i] = frames[1][: 4 * i, : 4 * i]
            given = frame if i == 1 else InterfaceArray(cuda, frame)
            result = one.predict(given, smoother=smoother, time_s=i / 30)
            if i in (1, 3):
                results += [result.logits, result.labels]
            del result
    return results


def is_told_apart(site: str) -> bool:
    """Whether a tour can tell.

    It cannot where freeing waits anyway, where memory is zero while something is left out, and for the pace.
    """
    return not any(part in site for part in (" close ", "cudaMemsetAsync", " _encode cudaEventRecord"))


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler (g++ or clang++)")
def test_without_any_of_them_results_differ(cpu, frames, local):
    frames = [frames[i][::8, ::8].copy() for i in (1, 3)]
    words = [local, dataclasses.replace(local, embeddings=local.embeddings[::-1].copy())]

    def run(dropped: str | None) -> tuple[list[np.ndarray], set[str]]:
        with machine() as (cuda, _):
            cuda.dropped = dropped
            try:
                return tour(cuda, frames, words), cuda.sites
            except Exception:
                if dropped is None:
                    raise
                return [], cuda.sites

    whole, sites = run(None)
    for frame, vocabulary, found in zip(frames, words, whole[:2], strict=True):
        expected = cpu.with_classes(vocabulary).predict(frame, refine="edges").labels
        assert (found == expected).mean() > 0.98
    assert not np.array_equal(whole[0], whole[1])
    assert all(map(np.array_equal, run(None)[0], whole))
    assert len(sites) > 20
    dropped = {site: run(site)[0] for site in sorted(sites) if is_told_apart(site)}
    needless = [
        site
        for site, found in dropped.items()
        if len(found) == len(whole) and all(map(np.array_equal, found, whole))
    ]
    assert needless == []
