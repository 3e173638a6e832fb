from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.fake_hub import TOKEN, FakeHub, Repo
from tests.test_card import write_run
from textadv.errors import ConfigError, DataError
from textadv.hub import HubConfig, PublishError, plan_push, push

# The Hub client's own upload of weights uses a deprecated argument of its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "owner/news-model"
TEXTS = ["good film", "a bad film , really", "the"]
PUBLISHED = [
    *("README.md", "config.json", "model.safetensors", "recipe.yaml", "report.json", "report.md"),
    *("tokenizer.json", "tokenizer_config.json"),
]

PUSH = """
import sys
from textadv.errors import TextAdvError
from textadv.hub import plan_push, push
try:
    plan = plan_push(sys.argv[1], sys.argv[2])
    print(plan.listing(), plan.card, sep="\\n")
    print("changed", push(plan, private="--private" in sys.argv).changed)
except TextAdvError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
LOAD = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
name, texts = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForSequenceClassification.from_pretrained(name).eval()
tokenizer = AutoTokenizer.from_pretrained(name)
with torch.no_grad():
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
classify = pipeline("text-classification", model=name, top_k=None, function_to_apply="none")
scores = [{row["label"]: row["score"] for row in rows} for rows in classify(texts)]
print(json.dumps({"logits": logits.tolist(), "scores": scores}))
"""


DATASET = """
from textadv.data import DataConfig, load_data
from textadv.errors import DataError
data = load_data(DataConfig(name="owner/news"))
print(data.labels.names, [[*dataset["text"]] for dataset in data.splits.values()])
for options in ({"name": "owner/news", "test": "dev"}, {"name": "owner/none"}):
    try:
        load_data(DataConfig(**options))
    except DataError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a run directory with a real, tiny model and a real tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", ",", "really", "the"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    config = BertConfig(
        **{"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 16},
        **{"id2label": {0: "sport", 1: "world"}, "label2id": {"sport": 0, "world": 1}},
    )
    run = write_run(tmp_path_factory.mktemp("run"))
    (run / "report.md").write_text("# Report\n")
    BertForSequenceClassification(config).eval().save_pretrained(run / "model")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
    ).save_pretrained(run / "model")
    return run


@pytest.fixture
def run_dir(trained, tmp_path) -> Path:
    """Return a copy of the run that a test may damage."""
    import shutil

    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def hub(monkeypatch):
    """Serve a Hub that the client in this process talks to."""
    import huggingface_hub.constants as constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    with FakeHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server
    enable_progress_bars()


def start(server: FakeHub, home: Path, *arguments: str, token: str = TOKEN):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {
        **{"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_TOKEN": token},
        **{"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        **{"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    }
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def files(server: FakeHub, repo: str = REPO) -> list[str]:
    return sorted(set(server.repos[f"models/{repo}"].head.files) - {".gitattributes"})


def test_a_published_run_is_the_same_model_in_a_new_process(trained, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with FakeHub() as server:
        first = start(server, tmp_path, PUSH, str(trained), REPO)
        assert first.returncode == 0, first.stderr
        assert first.stdout.endswith("changed True\n")
        commits = server.repos[f"models/{REPO}"].commits
        assert [commit.title for commit in commits] == ["initial commit", "Publish with textadv"]
        assert files(server) == PUBLISHED
        assert commits[-1].files["README.md"].decode() in first.stdout

        loaded = start(server, tmp_path, LOAD, REPO, json.dumps(TEXTS))
        assert loaded.returncode == 0, loaded.stderr
        again = start(server, tmp_path, PUSH, str(trained), REPO)
        assert again.returncode == 0, again.stderr
        assert again.stdout.endswith("changed False\n")
        assert len(commits) == 2
    model = AutoModelForSequenceClassification.from_pretrained(trained / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    found = json.loads(loaded.stdout)
    assert torch.equal(torch.tensor(found["logits"]), logits)
    for row, scores in zip(logits.tolist(), found["scores"], strict=True):
        assert [scores["sport"], scores["world"]] == pytest.approx(row, abs=1e-6)
    assert all(
        TOKEN not in text for done in (first, loaded, again) for text in (done.stdout, done.stderr)
    )
    assert all(TOKEN.encode() not in content for content in commits[-1].files.values())


@pytest.mark.slow
def test_a_dataset_of_the_hub_is_read_in_a_new_process(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    stored = {}
    for split, texts in {"train": ["NA", "007"], "validation": ["null"]}.items():
        columns = {"text": texts, "label": list(range(len(texts)))}
        path = tmp_path / f"{split}.parquet"
        Dataset.from_dict(columns, features=features).to_parquet(path)
        stored[f"data/{split}-00000-of-00001.parquet"] = path.read_bytes()
    with FakeHub() as server:
        server.repos["datasets/owner/news"] = Repo(private=True)
        server.repos["datasets/owner/news"].commit("data", stored)
        done = start(server, tmp_path / "home", DATASET)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [
        "('neg', 'pos') [[['NA'], ['007']], [['null']]]",
        "data.test: got no split 'dev' in owner/news, expected one of train, validation",
    ]
    assert "data.name: got owner/none, which cannot be loaded" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("token", ["hf_" + "wrong" * 6, ""])
def test_a_bad_token_is_one_line_in_a_new_process(trained, tmp_path, token):
    with FakeHub() as server:
        done = start(server, tmp_path, PUSH, str(trained), REPO, token=token)
        assert (done.returncode, server.repos) == (1, {})
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert ("was refused (401)" if token else "no access token") in done.stderr
    assert not token or token not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("failures", "message", "repository"),
    [
        (
            {"POST /api/repos/create": 500},
            r"a failure of the Hub \(500\); nothing was published",
            None,
        ),
        (
            {"POST /api/validate-yaml": 400},
            r"refusal \(ValueError: .*; nothing.*repository is empty",
            "empty",
        ),
        ({"POST /api/repos/create": 418}, r"refusal \(418: .*\*\*\*.*\); nothing was", None),
        ({"GET /api/whoami": 429}, r"too many requests \(429\); nothing was published", None),
        (
            {"/commit/": 500},
            r"a failure of the Hub \(500\); nothing was published, the new repository is empty",
            "empty",
        ),
        ({"/commit/": 403}, r"may not write there \(403\); nothing was published", "empty"),
        ({"PUT /lfs/": 403}, r"may not write there \(403\); nothing was published", "empty"),
        ({"/commit/": "drop"}, r"whether the commit arrived is not known", "empty"),
        ({"/api/models/": "drop"}, r"no connection to http.*; nothing was published\.", None),
    ],
)
def test_failures_are_one_line_and_nothing_is_half_published(
    trained, hub, failures, message, repository, caplog
):
    plan = plan_push(trained, REPO)
    hub.failures = dict(failures)
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(PublishError, match=f"^publishing to {REPO}: got .*{message}") as caught,
    ):
        push(plan, token=TOKEN)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value) + caplog.text
    assert caught.value.exit_code == 1
    if repository is None:
        assert hub.repos == {}
    else:
        assert files(hub) == []
    hub.failures = {}
    assert push(plan, token=TOKEN).changed
    assert files(hub) == PUBLISHED


def test_other_refusals_and_private_repositories(trained, run_dir, hub, monkeypatch):
    with pytest.raises(PublishError, match=r"stranger/x: got .*\(403\)"):
        push(plan_push(trained, "stranger/x"), token=TOKEN)
    plan = plan_push(trained, REPO)
    push(plan, token=TOKEN)
    with pytest.raises(PublishError, match="got a public repository, expected a private one"):
        push(plan, token=TOKEN, private=True)
    push(plan_push(trained, "owner/hidden"), token=TOKEN, private=True)
    assert hub.repos["models/owner/hidden"].private
    recipe = (run_dir / "recipe.yaml").read_text().replace("private: false", "private: true")
    (run_dir / "recipe.yaml").write_text(recipe)
    secret = plan_push(run_dir, "owner/from-recipe")
    assert secret.listing().startswith("owner/from-recipe (private): ")
    push(secret, token=TOKEN)
    assert hub.repos["models/owner/from-recipe"].private
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        PublishError, match=r"no connection to .*OfflineModeIsEnabled.*HF_HUB_OFFLINE"
    ):
        push(plan, token=TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match=r"no connection to http://127.0.0.1:9"):
        push(plan, token=TOKEN)


def test_weights_that_do_not_arrive_are_not_a_lost_commit(trained, hub, monkeypatch):
    def drop(**_):
        raise ConnectionError(TOKEN)

    monkeypatch.setattr("huggingface_hub._commit_api.lfs_upload", drop)
    with pytest.raises(
        PublishError, match=r"no connection .*; nothing was published, the new"
    ) as caught:
        push(plan_push(trained, REPO), token=TOKEN)
    assert TOKEN not in str(caught.value)
    assert files(hub) == []


def test_a_change_of_one_file_is_one_more_commit(run_dir, hub):
    push(plan_push(run_dir, REPO), token=TOKEN)
    (run_dir / "report.md").write_text("# Other\n")
    assert push(plan_push(run_dir, REPO), token=TOKEN).changed
    commits = hub.repos[f"models/{REPO}"].commits
    assert len(commits) == 3
    changed = {p for p, c in commits[-1].files.items() if commits[-2].files[p] != c}
    assert changed == {"report.md"}


def test_somebody_elses_commit_is_not_overwritten(trained, hub, monkeypatch):
    from huggingface_hub import HfApi

    plan = plan_push(trained, REPO)
    push(plan, token=TOKEN)
    repo = hub.repos[f"models/{REPO}"]
    find = HfApi.model_info

    def interrupted(self, *args, **options):
        found = find(self, *args, **options)
        repo.commit("theirs", {"other.txt": b""})
        return found

    monkeypatch.setattr(HfApi, "model_info", interrupted)
    with pytest.raises(PublishError, match="somebody else changed the repository"):
        push(plan, token=TOKEN)
    assert repo.head.title == "theirs"


def test_only_the_allow_list_is_in_the_plan(run_dir, tmp_path):
    outside = tmp_path / "secret.json"
    outside.write_text("{}")
    (run_dir / ".env").write_text("HF_TOKEN=x")
    (run_dir / "train.log").write_text("")
    (run_dir / "checkpoints" / "step-1").mkdir(parents=True)
    (run_dir / "checkpoints" / "step-1" / "model.safetensors").write_bytes(b"")
    (run_dir / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (run_dir / "model" / "vocab.json").symlink_to(outside)
    (run_dir / "model" / "more").symlink_to(tmp_path)
    (run_dir / "model" / ".hidden.safetensors").write_bytes(b"")
    os.mkfifo(run_dir / "model" / "merges.txt")
    (run_dir / "README.md").write_text("old")
    plan = plan_push(run_dir, REPO)
    assert sorted(file.path for file in plan.files) == PUBLISHED
    assert dict(plan.left_out) == {
        ".env": "hidden",
        "README.md": "rendered afresh",
        "env.json": "not on the allow-list",
        "metrics.jsonl": "not on the allow-list",
        "train.log": "not on the allow-list",
        "checkpoints/": "not on the allow-list",
        "model/.hidden.safetensors": "hidden",
        "model/merges.txt": "not a plain file",
        "model/more": "a link",
        "model/pytorch_model.bin": "can hold a pickle",
        "model/vocab.json": "a link",
    }
    listing = plan.listing()
    assert listing.startswith(f"{REPO}: 8 files, ")
    assert re.search(r"\d B  report.md$", listing, re.MULTILINE)
    assert "  checkpoints/ (not on the allow-list)" in listing


def _break(path: str, content: bytes | None):
    def apply(run: Path) -> None:
        if content is None:
            (run / path).unlink()
        else:
            (run / path).write_bytes(content)

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_break("model/model.safetensors", None), r"model: got no model.safetensors"),
        (_break("model/model.safetensors", b"\x10" * 50), r"expected whole safetensors"),
        (_break("model/config.json", b"{"), r"config.json: got .*expected JSON"),
        (_break("model/config.json", b'{"auto_map": {}}'), r"config.json: got auto_map"),
        (
            _break("model/tokenizer_config.json", None),
            r"tokenizer_config.json: got no such plain file",
        ),
        (_break("recipe.yaml", None), r"recipe.yaml: got no such plain file"),
        (
            _break(
                "model/model.safetensors.index.json",
                b'{"weight_map": {"w": "model-2.safetensors"}}',
            ),
            r"got no model-2.safetensors",
        ),
        (
            _break("report.md", b"HF_TOKEN=" + TOKEN.replace("_", "_x").encode()),
            r"^report.md: got what",
        ),
        (
            _break("recipe.yaml", f"hub: {{repo: {TOKEN}}}".encode()),
            r"got what looks like an access",
        ),
    ],
)
def test_what_must_not_be_published_is_refused(run_dir, damage, message):
    damage(run_dir)
    with pytest.raises(DataError, match=message) as caught:
        plan_push(run_dir, REPO)
    assert TOKEN not in str(caught.value)


def test_what_changes_after_the_listing_is_not_sent(run_dir, hub):
    plan = plan_push(run_dir, REPO)
    (run_dir / "report.md").write_text("# Other\n")
    with pytest.raises(DataError, match=r"report.md: got a change since it was listed"):
        push(plan, token=TOKEN)
    (run_dir / "report.md").write_text("# my secret\n")
    with pytest.raises(DataError, match=r"^report.md: got what looks like an access token"):
        push(plan_push(run_dir, REPO), token="my secret")
    assert hub.requests == []


def test_a_report_of_another_folder_replaces_the_runs_own(run_dir, tmp_path):
    (tmp_path / "attack").mkdir()
    report = json.loads((run_dir / "report.json").read_text())
    report["seed"] = 77
    (tmp_path / "attack" / "report.json").write_text(json.dumps(report))
    plan = plan_push(run_dir, REPO, report_dir=tmp_path / "attack")
    assert "seed 77" in plan.card
    sources = {file.path: file.source for file in plan.files}
    assert sources["report.json"] == tmp_path / "attack" / "report.json"
    assert "report.md" not in sources


@pytest.mark.parametrize(
    "repo", ["name", "a/b/c", "../x/y", "a/..", "a b/c", "https://h/a", "a--b/c", "a/b..c", ""]
)
def test_a_repository_id_is_owner_and_name(tmp_path, repo):
    with pytest.raises(ConfigError, match="owner/name"):
        HubConfig(repo=repo)
    with pytest.raises(ConfigError, match="owner/name"):
        plan_push(tmp_path, repo)


def test_the_hub_block(tmp_path):
    assert HubConfig(repo="owner/name", license="apache-2.0", language=["en"]).private is False
    with pytest.raises(ConfigError, match=r"hub\.license"):
        HubConfig(license="MIT License")
    with pytest.raises(ConfigError, match=r"hub\.language"):
        HubConfig(language=["en", "e n"])
    with pytest.raises(DataError, match="no model/ directory"):
        plan_push(tmp_path, REPO)
