# make demo | make test | make check | make serve. The first call makes the virtual environment; later calls reinstall nothing.
# VENV=/elsewhere shares one environment between clones.
VENV ?= .venv
PYTHON ?= $(shell for name in python3.12 python3.11 python3.13 python3; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$name && break; done)
BIN := $(VENV)/bin
# The environment is as it should be if these three are: what is asked for, what is pinned, which interpreter.
KEY := $(shell { cat pyproject.toml constraints.txt; $(PYTHON) --version; } 2>/dev/null | cksum | tr ' ' '-')
STAMP := $(VENV)/.installed-$(KEY)
# Where it is set, as in many images of containers, every process would compile torch, pandas and all else again.
unexport PYTHONDONTWRITEBYTECODE
PIP := --disable-pip-version-check -c constraints.txt

.PHONY: demo serve test check quick campaign install
demo: install
	$(BIN)/python -m flows.demo

serve: install
	$(BIN)/python -m flows.service.supervisor $(SERVE)

# Temporary files in memory, where a folder of it has so many kB free, which a container's often has not: nobody waits for a disk
# then, nor for the deletion of what earlier sessions left there.
in_memory = $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > $(1) {print "TMPDIR=/dev/shm"}')

# A process a core, at most four: most tests start processes of their own and wait for them. Coverage is that of flows, in process.
test: install
	$(call in_memory,8000000) $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal --cov --cov-report= \
		-o tmp_path_retention_count=1

# Temporary files are 320 MB. Without pytest's own capture of logs, which costs 2 ms a test.
# Whatever stands beside tests/unit is slow (tests/unit/test_imports.py): it need not even be imported.
quick: install
	$(call in_memory,2000000) $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal \
		-m "not slow and not campaign" -o tmp_path_retention_count=1 -p no:logging tests/unit

# What takes minutes a test, and every slow test again with each process started from nothing (tests/preloading.py): an hour.
# 200 kills take about an hour more: python tests/chaos/campaign.py --kills 180 --service 20
campaign: install
	LMERASER_TESTS_COLD=1 $(BIN)/python -m pytest -m "campaign or slow"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(STAMP)

$(STAMP):
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 was found; install one, or name it: make PYTHON=..." >&2; exit 2; }
	@echo "Installing into $(VENV): about 2.7 GB to download, 6.6 GB on disk, 2 to 5 minutes, once."
	@echo "1 of 2: an empty environment"
	@$(PYTHON) -m venv $(VENV)
	@echo "2 of 2: packages, by uv where it is here or the registry has it, else by pip"
	@uv=$$(command -v uv || { $(BIN)/python -m pip install --quiet $(PIP) uv >&2 && echo $(BIN)/uv; }); \
	if [ -n "$$uv" ] && "$$uv" pip install --python $(BIN)/python -c constraints.txt -e '.[dev]'; then :; \
	else echo "uv could not; pip does it"; $(BIN)/python -m pip install $(PIP) -e '.[dev]'; fi
	@rm -f $(VENV)/.installed-*
	@touch $(STAMP)
