# Everything runs in .venv, which the first target that needs it makes from the lock.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/ready

.PHONY: train test lint format predict ui clean

train: $(READY) ## train baseline and transformer, compare them on the test split, name a champion
	$(BIN)/python train.py --multirun model=tfidf,minilm
	$(BIN)/python evaluate.py models=[models/tfidf-seed1,models/minilm-seed1] \
		data=data/stance/test.jsonl promote=true
	@echo
	@echo "runs:  make ui                 then open http://127.0.0.1:5000"
	@echo "next:  $(BIN)/python predict.py input=ARTICLE.txt"

test: $(READY) ## offline, no model hub
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

predict: $(if $(INPUT),$(READY)) ## make predict INPUT=article.txt
	$(if $(INPUT),,$(error INPUT: name what to read, as in make predict INPUT=article.txt))
	$(BIN)/python predict.py input='$(INPUT)'

ui: $(READY) ## MLflow on 127.0.0.1 over models/mlflow.db
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --host 127.0.0.1 --port 5000 \
		--backend-store-uri sqlite:///models/mlflow.db

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(READY)

clean:
	rm -rf .venv build src/*.egg-info
