# Every target makes what it needs: on a fresh machine `make demo` or `make test` is the only command.
# The virtual environment is .venv; delete it (`make clean`) to start over.

PYTHON ?= python3
# One of the embedded suites: spatial, object, goal, long.
SUITE  ?= spatial
# Where `make demo` puts its episodes, checkpoints and report.
DEMO   ?= runs/demo
# Test processes side by side.
JOBS   ?= 2
# What style and types are checked of; mypy's list is in pyproject.toml.
SOURCES := src tests benchmarks docs examples

PIP := -m pip install --quiet --no-input --disable-pip-version-check
# Installs packages of the system; fails at once where that would need somebody's password or another package manager.
APT_INSTALL := install() { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "apt-get install $$*" && \
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$$@" >/dev/null; }; \
  install

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint format docs faults extras-test clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'
	@echo
	@echo "  PYTHON=python3.12   the interpreter .venv is made with (3.11 or later)"
	@echo "  SUITE=object        the suite of make demo: spatial, object, goal or long"
	@echo "  JOBS=4              test processes side by side"

setup: .venv/.opengl ## make .venv with all packages, and the system's OpenGL where it is missing

demo: private export PATH := $(CURDIR)/.venv/bin:$(PATH)
demo: setup ## from demonstrations to a report: clone, imagine, improve, co-evolve; goes on where it was stopped
	wovr pace --config conf/pace/tabletop.yaml --suite $(SUITE) --out $(DEMO)/$(SUITE)

test: lint ## check style and types, run the tests
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(JOBS)

lint: setup ## check style and types
	.venv/bin/ruff check --output-format concise $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/mypy

format: setup ## rewrite the sources in the house style
	.venv/bin/ruff check --fix $(SOURCES)
	.venv/bin/ruff format $(SOURCES)

docs: .venv-docs/.packages ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict --quiet
	@echo "site/index.html; with search: python3 -m http.server --bind 127.0.0.1 -d site"

faults: setup ## damage inputs and kill commands, 1,000 and 50 times, and count what goes wrong
	.venv/bin/python benchmarks/faults.py --jobs $(JOBS)

extras-test: .venv-openvla/.packages .venv-metaworld/.packages .venv-lerobot/.packages .venv-libero/.packages .venv-docs/.packages ## test the extras in environments of their own
	WOVR_EXTRAS=docs .venv-docs/bin/python -m pytest -m 'extra(name="docs")' tests/test_site.py
	OMP_NUM_THREADS=1 WOVR_EXTRAS=openvla,lora,wandb .venv-openvla/bin/python -m pytest \
	  -m 'extra(name="openvla") or extra(name="lora") or extra(name="wandb")'
	OMP_NUM_THREADS=1 .venv-metaworld/bin/python -m pytest tests/envs/simulators/metaworld/test_env.py tests/envs/simulators/test_gym.py
	OMP_NUM_THREADS=1 .venv-lerobot/bin/python -m pytest tests/data/converters/lerobot/test_lerobot.py
	OMP_NUM_THREADS=1 .venv-libero/bin/python -m pytest tests/envs/simulators/libero/test_env.py

clean: ## delete the virtual environments and caches; data/ and runs/ stay
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache build site src/*.egg-info
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the targets above stand on ---------------------------------------------------------------------------------

# Debian ships python3 without venv, and a container may ship no Python at all.
CHECK_PYTHON := $(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1

.venv/bin/pip:
	@$(CHECK_PYTHON) || { $(APT_INSTALL) python3 python3-venv && $(CHECK_PYTHON); } || \
	  { echo "make: $(PYTHON) is missing, older than 3.11 or without venv;" \
	         "run 'apt-get install python3-venv' or give another interpreter, e.g. make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv

.venv/.packages: pyproject.toml | .venv/bin/pip
	@echo "installing wovr and its packages into .venv: some minutes, about 6 GB with PyTorch"
	.venv/bin/python $(PIP) -e '.[dev]'
	@touch $@

# MuJoCo renders through EGL or OSMesa, which are libraries of the system; any machine can run OSMesa.
.venv/.opengl: .venv/.packages
	@.venv/bin/python -m wovr.envs.simulators.rendering >/dev/null 2>&1 || \
	  { $(APT_INSTALL) libosmesa6 && .venv/bin/python -m wovr.envs.simulators.rendering >/dev/null; } || \
	  { echo "make: MuJoCo has no OpenGL to render with; run 'apt-get install libosmesa6' (or your system's OSMesa)," \
	         "then this again" >&2; exit 1; }
	@touch $@

# An environment that sees the packages of .venv, so PyTorch is not installed twice, and holds only what differs.
define SHARED_VENV
.venv/bin/python -m venv --clear --without-pip $(@D)
@.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
  "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth"
endef

# The documentation site.
.venv-docs/.packages: pyproject.toml | setup
	$(SHARED_VENV)
	.venv-docs/bin/python $(PIP) -e '.[docs]'
	@touch $@

# The paper's policy, low-rank adapters and wandb.
.venv-openvla/.packages: pyproject.toml | setup
	$(SHARED_VENV)
	.venv-openvla/bin/python $(PIP) -e '.[openvla,lora,wandb]'
	@touch $@

# metaworld pins an older MuJoCo.
.venv-metaworld/.packages: pyproject.toml | setup
	$(SHARED_VENV)
	.venv-metaworld/bin/python $(PIP) -e '.[metaworld]'
	@touch $@

# lerobot pins an older PyTorch, so its environment shares nothing.
.venv-lerobot/.packages: pyproject.toml .ci/lerobot.txt | .venv/bin/pip
	.venv/bin/python -m venv --clear .venv-lerobot
	.venv-lerobot/bin/python $(PIP) -c .ci/lerobot.txt -e '.[lerobot,convert]' pytest
	@touch $@

# hf-libero's own requirements would bring another PyTorch and much that is not needed here; README lists the same. Its tests need
# LIBERO's meshes: WOVR_LIBERO_ASSETS names their folder, without it they say so and are skipped.
.venv-libero/.packages: pyproject.toml | setup
	$(SHARED_VENV)
	.venv-libero/bin/python $(PIP) 'mujoco>=3.3,<3.9' 'numpy<2.3' numba scipy pillow opencv-python-headless easydict cloudpickle \
	  pyyaml termcolor future h5py imageio tqdm matplotlib networkx psutil
	.venv-libero/bin/python $(PIP) --no-deps robosuite==1.4.0 bddl==1.0.1 hf-libero==0.1.4
	.venv-libero/bin/python $(PIP) --no-deps -e .
	@touch $@
