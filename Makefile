# Every target sets up what it needs. PYTHON picks the interpreter.
PYTHON ?= python3
VENV := .venv
DEMO := .venv-demo
PIP := -m pip install --quiet --disable-pip-version-check
# Versions that were tested together; `make test` uses them so that a release elsewhere breaks nothing here.
PINS := -c .ci/constraints.txt

# Processes that run tests at the same time, with a thread each.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

# `make test-gpu PYTHON=python3 VENV=` runs in the environment of that Python, without the internet.
RUN := $(if $(VENV),$(VENV)/bin/python,$(PYTHON))

# What `make test-gpu` compiles and times: a model's name or a bundle's folder.
MODEL ?= pixelclip-lite

# What `make bench` takes: photos named after what they show, and CamVid (docs/evaluation.md).
PHOTOS ?= photos
CAMVID ?= camvid

# Minutes of `make fuzz`, and of each of the three soaks of `make soak`.
MINUTES ?= 10

# The oldest and the newest Python that the SDK is tested on.
OLDEST ?= 3.11
NEWEST ?= 3.13

.PHONY: help demo test test-sdk test-export-oldest test-slow test-gpu check docs bench fuzz soak pins audit bundle clean

help:
	@echo "make demo       install without torch, segment the photos in examples/, print the latency table"
	@echo "make test       set up and run all tests (installs torch: about 6 GB)"
	@echo "make test-sdk   the SDK's tests without torch: the wheel in bare environments, oldest and newest Python"
	@echo "make test-export-oldest  the export with the oldest onnx and onnxruntime that it admits"
	@echo "make docs       build the documentation site in build/site; warnings are errors"
	@echo "make test-slow  the tests marked slow as well"
	@echo "make test-gpu   on a machine with an NVIDIA GPU: its tests, and the latency of every backend"
	@echo "make bench PHOTOS=DIR CAMVID=DIR  all measurements on this machine, compared with those before; docs/speed.md"
	@echo "make check      lint, types, docs, tests: run it before a commit"
	@echo "make bundle TUNED=FILE PHOTOS=DIR  build the bundled model again, from fine-tuned weights (docs/training.md)"
	@echo "make pins       the container's packages with their hashes; make audit: known weaknesses in them"
	@echo "make fuzz MINUTES=10  damaged files of every kind; make soak: predict, a stream and a server for long"

$(DEMO)/installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(PIP) $(PINS) -e .
	touch $@

$(VENV)/installed: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) $(PINS) -e ".[dev]"
	# A Triton server for its tests. Its own Python code is not used; its server needs numpy 1.
	$(VENV)/bin/python $(PIP) --no-deps nvidia-pytriton==0.7.0 || true
	$(VENV)/bin/python $(PIP) --no-deps --target $(VENV)/triton numpy==1.26.4 || true
	touch $@

demo: $(DEMO)/installed
	$(DEMO)/bin/pixelclip predict examples/photos --classes examples/classes.txt --out demo
	$(DEMO)/bin/pixelclip benchmark --image examples/photos/chelsea.jpg
	@echo "Open demo/*.overlay.png"

test: check

check: $(VENV)/installed
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mkdocs build --quiet --strict --site-dir build/site
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n $(WORKERS) -m "not slow and not gpu and not network" --durations=20

test-sdk:
	.ci/sdk_lane.sh $(OLDEST) .ci/lowest.txt serve,video
	.ci/sdk_lane.sh $(NEWEST) .ci/constraints.txt serve,video

docs: $(VENV)/installed
	$(VENV)/bin/mkdocs build --strict --site-dir build/site

test-export-oldest: $(VENV)/installed
	$(VENV)/bin/python $(PIP) --no-deps --upgrade --target $(VENV)/oldest -r .ci/lowest-export.txt
	PYTHONPATH=$(VENV)/oldest:. OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q tests/export/precision \
		-n $(WORKERS) -m "not slow and not gpu and not network"

test-slow: $(VENV)/installed
	$(VENV)/bin/pytest -o timeout=0 -m "not gpu and not network"

# Every test runs or says why this GPU cannot. Without an engine, the table has the other backends. A GPU may be there
# for minutes only: what fails does not keep the rest from running. The environment need not have this checkout installed.
test-gpu: export PYTHONPATH := $(CURDIR)
test-gpu: $(if $(VENV),$(VENV)/installed)
	@failed=0; set -x; \
	$(RUN) -m pytest -m gpu --continue-on-collection-errors || failed=1; \
	$(RUN) benchmarks/gpu.py --json benchmarks/results/gpu.json || failed=1; \
	$(RUN) export/to_trt.py --bundle $(MODEL) --out build/engines || echo "no engine for the table"; \
	$(RUN) benchmarks/backends.py --model $(MODEL) --json benchmarks/results/gpu-latency.json \
		$$(ls build/engines/*.plan >/dev/null 2>&1 && echo --engines build/engines) || failed=1; \
	exit $$failed

bench: $(VENV)/installed
	$(VENV)/bin/python $(PIP) $(PINS) -e ".[bench]"
	$(VENV)/bin/python benchmarks/all.py --photos $(PHOTOS) --camvid $(CAMVID)

# atheris has wheels for few versions of Python. Without it, the changes are random only.
fuzz: $(VENV)/installed
	$(VENV)/bin/python $(PIP) atheris || true
	$(VENV)/bin/python benchmarks/attack/fuzz.py --minutes $(MINUTES) --json benchmarks/results/attack-fuzz.json
	! $(VENV)/bin/python -c "import atheris" || $(VENV)/bin/python benchmarks/attack/fuzz.py --guided \
		--minutes $(MINUTES) --json benchmarks/results/attack-guided.json

# Killed writers, small disks and the missing network need root.
soak: $(VENV)/installed
	$(VENV)/bin/python benchmarks/attack/soak.py --minutes $(MINUTES) --json benchmarks/results/attack-soak.json
	$(VENV)/bin/python benchmarks/attack/kill.py --json benchmarks/results/attack-kill.json
	$(VENV)/bin/python benchmarks/attack/memory.py --json benchmarks/results/attack-memory.json

# In the container for NVIDIA GPUs, in place of onnxruntime.
CUDA := onnxruntime-gpu[cuda,cudnn]==1.31.1
# The Python of the container. Hashes are of all files of a version, so of every processor.
COMPILE := $(VENV)/bin/uv pip compile --quiet --no-header --no-annotate --generate-hashes --universal --python-version 3.13

pins: $(VENV)/installed
	$(VENV)/bin/python $(PIP) uv
	$(COMPILE) $(PINS) --extra serve pyproject.toml -o examples/container/requirements-serve.txt
	$(COMPILE) $(PINS) --extra serve --extra video pyproject.toml -o "examples/container/requirements-serve,video.txt"
	echo "$(CUDA)" | $(COMPILE) $(PINS) --no-emit-package onnxruntime --extra serve pyproject.toml - \
		-o examples/container/requirements-cuda-serve.txt
	echo "$(CUDA)" | $(COMPILE) $(PINS) --no-emit-package onnxruntime --extra serve --extra video pyproject.toml - \
		-o "examples/container/requirements-cuda-serve,video.txt"
	echo hatchling | $(COMPILE) $(PINS) - -o examples/container/requirements-build.txt

# It asks PyPI's database of weaknesses.
audit: $(VENV)/installed
	$(VENV)/bin/python $(PIP) pip-audit
	$(VENV)/bin/pip-audit --require-hashes --disable-pip -r "examples/container/requirements-serve,video.txt"

bundle: $(VENV)/installed
	@test -n "$(TUNED)" -a -n "$(PHOTOS)" || { echo "make bundle needs TUNED=FILE and PHOTOS=DIR; see docs/training.md"; exit 2; }
	$(VENV)/bin/python export/to_onnx.py --model pixelclip-lite --checkpoint $(TUNED) \
		--out pixelclip_sdk/assets/pixelclip-lite
	sed -i 's/"name": "pixelclip-lite+[^"]*"/"name": "pixelclip-lite"/' pixelclip_sdk/assets/pixelclip-lite/bundle.json
	$(VENV)/bin/python export/embed_text.py --bundle pixelclip-lite --classes export/background.txt \
		--name background --calibration benchmarks/results/calibration.json
	$(VENV)/bin/python export/damping.py --bundle pixelclip-lite --photos $(PHOTOS)

clean:
	rm -rf $(VENV) $(DEMO) build dist demo *.egg-info
