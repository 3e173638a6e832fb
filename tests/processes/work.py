"""The same optimizer steps on any number of processes: run by the tests, and under a launcher."""

from __future__ import annotations

import contextlib
import time

import torch
from accelerate import DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import textadv
from tests.models import make_tokenizer, sentiment_rows
from tests.test_trainer import OBJECTIVES as TRAINED
from tests.test_trainer import make_trainer, rows_of
from textadv.adapters import LoRAConfig, add_adapters
from textadv.batching import Encoded, MicroBatches
from textadv.errors import TextAdvError
from textadv.launch import prepare
from textadv.objectives import OBJECTIVES, SMART, Flooding
from textadv.seeding import seed_everything, torch_generator
from textadv.testing import tiny_model

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

# 40 examples in micro-batches of 3: a step of 8, then one of 6 with a single text in one of them,
# so that with 4 processes two repeat a micro-batch at weight 0. The third step is of epoch 2.
MICRO_BATCHES, BATCH_SIZE, EXAMPLES, STEPS = 8, 3, 40, 3

CASES = {
    **{name: kind() for name, kind in OBJECTIVES.items()},
    "smart with an average": SMART(bregman=1.0),
    "flooded smart with an average": Flooding(objective=SMART(bregman=1.0), level=0.7),
    "free, 2 replays": OBJECTIVES["free"](num_replays=2),
    "fat, period 2": OBJECTIVES["fat"](period=2),
}
# What FSDP2 is refused for: these read or move weights one by one.
WHOLE = ("awp", "sam", "sam-fgm", "r4f", "smart with an average", "flooded smart with an average")

NAMES = {
    "quick": ("adversarial", "freelb", "tavat"),
    "plain": tuple(CASES),
    "dropout": ("adversarial", "freelb", "trades", "rdrop"),
    "unused": ("freelb",),
    "adapters": ("adversarial", "trades"),
    "short": ("freelb",),
    "too short": ("clean",),
    "sharded": tuple(CASES),
    "trainer": ("fgm", "pgd", "freelb", "trades", "tavat"),
    "sharded trainer": ("pgd",),
}
KINDS = tuple(NAMES)[1:]


def jobs(kinds):
    """Return kind and name of each run."""
    return [(kind, name) for kind in kinds for name in NAMES[kind]]


def run_job(kind, name, accelerator, folder):
    """Return the tensors of one run, or the error that it must end with."""
    several = accelerator.num_processes > 1
    if kind == "trainer":
        return train(kind, name, accelerator, folder)
    if kind == "sharded trainer":
        with sharding(accelerator) if several else contextlib.nullcontext():
            return train(kind, name, accelerator, folder)
    objective = CASES[name]
    if kind == "dropout":
        return run_steps(objective, accelerator, make_model(dropout=True))
    if kind == "unused":  # XLNet has a parameter that no forward of a classifier reads
        return run_steps(objective, accelerator, make_model("xlnet"))
    if kind == "adapters":
        torch.manual_seed(0)
        lora = LoRAConfig(rank=2, dropout=0.0)
        return run_steps(objective, accelerator, add_adapters(make_model(), lora, "tiny").double())
    if kind == "short":  # one process alone runs out of memory in its first pass of a step
        broken = several and accelerator.process_index == 1
        return run_steps(objective, accelerator, make_model(), fail_at=0 if broken else None)
    if kind == "too short" and several:  # in the pass that exchanges gradients: the last one
        return message_of(
            lambda: run_steps(objective, accelerator, make_model(), fail_at="exchange")
        )
    if kind == "sharded" and several:
        with sharding(accelerator):
            if name in WHOLE:
                return message_of(lambda: run_steps(objective, accelerator, make_model()))
            return run_steps(objective, accelerator, make_model())
    return run_steps(objective, accelerator, make_model())


def train(kind, name, accelerator, folder):
    """Return weights and figures of a run that stops and is resumed, best weights kept."""
    options = {
        "batch_size": BATCH_SIZE,
        "gradient_accumulation_steps": MICRO_BATCHES // accelerator.num_processes,
        "eval_batch_size": 7,
        "eval_steps": 2,
        "best_metric": "clean_loss",
        "log_steps": 1,
    }
    # One process is ahead of the others: what it writes must not be in their way.
    time.sleep(0.2 * accelerator.process_index)
    for steps in (3, 5):
        trainer = make_trainer(
            folder / f"{kind} {name} on {accelerator.num_processes}",
            TRAINED.get(name) or CASES[name],
            model=make_model(),
            max_steps=steps,
            **options,
        )
        result = trainer.fit(resume=steps == 5)
    found = {f"weight {key}": value for key, value in result.model.state_dict().items()}
    if accelerator.is_main_process:
        stored = load_file(trainer.store.folder / "model" / "model.safetensors")
        found |= {f"stored {key}": value for key, value in stored.items()}
        for row in rows_of(trainer.store.folder):
            split, step = row.pop("split"), row.pop("step")
            for key, value in row.items():
                found[f"{split} {step} {key}"] = torch.tensor(float(value))
    return {key: value.detach().cpu().contiguous() for key, value in found.items()}


def message_of(run):
    """Return the error that a run must end with, as bytes."""
    try:
        run()
    except TextAdvError as error:
        return {"error": torch.frombuffer(bytearray(str(error).encode()), dtype=torch.uint8)}
    raise AssertionError("no error")


@contextlib.contextmanager
def sharding(accelerator):
    """Let Accelerate shard with FSDP2, which it does not offer on CPUs by itself."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["BertLayer"],
        cpu_ram_efficient_loading=False,
        reshard_after_forward=accelerator.num_processes == 2,  # both ways
    )
    states = (AcceleratorState._shared_state, PartialState._shared_state)
    before = [state["distributed_type"] for state in states]
    for state in states:
        state["distributed_type"] = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    try:
        yield
    finally:
        accelerator.state.fsdp_plugin = None
        for state, kind in zip(states, before, strict=True):
            state["distributed_type"] = kind


def make_model(architecture="bert", dropout=False):
    plain = {} if dropout or architecture != "bert" else NO_DROPOUT
    return tiny_model(architecture, num_labels=2, **plain).double()


def make_data(count=EXAMPLES):
    rows = sentiment_rows(count)
    return Encoded([[r["text"]] for r in rows], [r["label"] for r in rows], make_tokenizer())


def with_candidates(batch):
    """Add what the methods with synonyms read: two other words for every third one."""
    ids = batch["input_ids"]
    others = torch.stack([ids, 4 + (ids + 5) % 30, 4 + (ids + 11) % 30], dim=-1)
    others[..., 1:][ids % 3 > 0] = -1
    return {**batch, "candidates": others}


def run_steps(objective, accelerator, model, fail_at=None):
    """Take `STEPS` steps of SGD; pass `fail_at` of the second one runs out of memory, once.

    Returns:
        Tensors by name: the gradient of each step, the final weights and memory, and how often
        gradients were exchanged in each step.
    """
    model.to(accelerator.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    prepared, optimizer = prepare(accelerator, model, optimizer)
    exchanges = []
    if isinstance(prepared, torch.nn.parallel.DistributedDataParallel):

        def count(group, bucket):
            exchanges.append(bucket.is_last())
            return allreduce_hook(group, bucket)

        prepared.register_comm_hook(None, count)
    port = textadv.wrap(model, forward=prepared)
    data = make_data()
    deal = MicroBatches(
        data.lengths,
        batch_size=BATCH_SIZE,
        accumulation=MICRO_BATCHES // accelerator.num_processes,
        seed=0,
        length_bucketing=True,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    found = {}

    def forget():
        optimizer.zero_grad()
        port.notes.clear()

    for step in range(STEPS):
        prepared.train()
        share = deal[step // objective.replays]
        exchanges.clear()

        def gradients(share=share, step=step):
            for place, (number, indices, weight) in enumerate(share):
                seed_everything(0, "dropout", step, number)
                batch = with_candidates(data.batch(indices, accelerator.device))
                batch["example_id"] = torch.tensor(indices, device=accelerator.device)
                textadv.backward(
                    objective,
                    port,
                    batch,
                    accelerator,
                    generator=torch_generator(accelerator.device, 0, step, number),
                    scale=weight,
                    sync=place == len(share) - 1,
                )

        failing = fail_at is not None and step == 1
        with short_of_memory(model, prepared, fail_at) if failing else contextlib.nullcontext():
            port.parts.fitting(gradients, undo=forget)
        found[f"exchanges of step {step}"] = torch.tensor(sum(exchanges))
        for name, value in whole(model, "grad").items():
            found[f"step {step}, gradient of {name}"] = value
        optimizer.step()
        optimizer.zero_grad()
    for name, value in whole(model, "data").items():
        found[f"weight {name}"] = value
    for name, value in port.memory.items():
        found[f"memory {name}"] = value
    accelerator.free_memory()
    return {name: value.detach().cpu().contiguous() for name, value in found.items()}


@contextlib.contextmanager
def short_of_memory(model, prepared, fail_at):
    """Fail one forward, counted from the first; or the backward that exchanges gradients."""
    calls = []

    def fail(*_):
        raise torch.OutOfMemoryError("allocation failed")

    def hook(module, args, output):
        calls.append(1)
        if len(calls) - 1 == fail_at:
            fail()
        if fail_at == "exchange" and prepared.require_backward_grad_sync:
            output.logits.register_hook(fail)

    handle = model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def whole(model, kind):
    """Return gradients or weights by name, of sharded models put together."""
    found = {}
    for name, parameter in model.named_parameters():
        value = getattr(parameter, kind)
        if value is not None:
            value = value.full_tensor() if hasattr(value, "full_tensor") else value
            found[name] = value.detach().clone()
    return found
