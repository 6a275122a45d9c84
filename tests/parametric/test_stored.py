"""Adapters kept in fewer bytes: judged, hashed and used as they come back, plain when they leave, and checked alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from tests.parametric.conftest import PASSED, QUICK, Open, flip
from tests.parametric.test_adapter import SHAPES, an_adapter
from tests.parametric.test_promote import FACTS, files, payload, promoted
from torch import Tensor

from tercet import Tercet
from tercet.engine.lora import content_hash
from tercet.engine.transformers import TransformersEngine
from tercet.engine.vllm import VLLM
from tercet.errors import InvalidRequest, Refused, TercetError, VaultDamaged
from tercet.exchange.adapters import export_adapter
from tercet.parametric import adapter as peft
from tercet.parametric import promote as promotion
from tercet.parametric.adapter import CONFIG, PREFIX, STORED, WEIGHTS, load, read, save
from tercet.parametric.memory import CONFIG as CONFIG_ROLE
from tercet.parametric.memory import DATA, REPORT, fetch, read_blob
from tercet.parametric.promote import Teaching
from tercet.parametric.quant.blocks import CODECS
from tercet.parametric.signature import MANIFEST
from tercet.relearning import _recorded
from tercet.scoped import ScopedMemory
from tercet.testing.tiny import tiny_engine

pytestmark = pytest.mark.usefixtures("short_gate")
FORMS = pytest.mark.parametrize("form", CODECS)
MASTER = bytes(range(32))


WIDE = replace(QUICK, rank=32)
"""Of a rank at which codes are fewer bytes than what a file says beside them."""


def how(form: str) -> Teaching:
    return replace(PASSED, stored=form)


@FORMS
def test_what_is_judged_hashed_and_used_is_what_comes_back_from_the_file(
    t: Tercet, alice: ScopedMemory, tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    ids = [cube.id for cube in alice.remember_many(FACTS)]
    plain, asked = promoted(alice, ids, replace(PASSED, recipe=WIDE)), list[str]()

    def noted(engine: Any, key: str, *rest: Any, **more: Any) -> Any:  # noqa: ANN401  # as judge
        asked.append(key)
        return judge(engine, key, *rest, **more)

    judge = promotion.judge  # type: ignore[attr-defined]
    monkeypatch.setattr(promotion, "judge", noted)
    made = promoted(alice, ids, replace(how(form), recipe=WIDE))
    assert made.id != plain.id
    assert promoted(alice, ids, replace(how(form), recipe=WIDE)).id == made.id
    tenant = t.vault.tenant("default")
    config = json.loads(read_blob(tenant, payload(made), CONFIG_ROLE))
    assert (config[STORED], "peft_type" in config) == (form, False)
    size = {cube.id: next(one.size for one in payload(cube).blobs if one.role == DATA) for cube in (plain, made)}
    assert size[made.id] < {"int8": 0.65, "nf4": 0.4}[form] * size[plain.id]
    report = json.loads(read_blob(tenant, payload(made), REPORT))
    assert (report["adapter_bytes"], report["stored"]) == (size[made.id], form)
    assert json.loads(read_blob(tenant, payload(plain), REPORT))["stored"] == "bf16"
    assert asked == [json.loads(read_blob(tenant, payload(made), MANIFEST))["content"]]
    assert t.lora.use(tenant, alice.scope, made.id, tiny) == asked[0]
    ours, exact = (fetch(tenant, payload(cube), tiny).modules for cube in (made, plain))
    assert {pair.a.dtype for pair in ours.values()} == {torch.bfloat16}
    for name, pair in exact.items():
        off = float((ours[name].a.float() - pair.a.float()).norm() / pair.a.float().norm())
        assert 0 < off < {"int8": 0.012, "nf4": 0.14}[form]


@FORMS
def test_a_sealed_vault_and_a_restart_give_the_same_back(opened: Open, tmp_path: Path, form: str) -> None:
    with opened(sealing=MASTER) as t:
        made = promoted(t.scope(user="alice"), [t.scope(user="alice").remember(FACTS[0]).id], how(form))
        assert [path for path in files(t) if STORED.encode() in path.read_bytes()] == []
    for _ in range(2):
        with opened(sealing=MASTER) as t:
            assert t.scope(user="alice").chat("?", max_tokens=1, adapters=[made.id]).adapters == (made.id,)
    with Tercet.open(tmp_path / "clear", embedder=None, engines={"tiny": tiny_engine()}) as t:
        clear = promoted(t.scope(user="alice"), [t.scope(user="alice").remember(FACTS[0]).id], how(form))
    with Tercet.open(tmp_path / "clear", embedder=None, engines={"tiny": tiny_engine()}) as t:
        assert t.scope(user="alice").chat("?", max_tokens=1, adapters=[clear.id]).adapters == (clear.id,)
    assert [one.sha256 for one in payload(clear).blobs if one.role == DATA] == [
        one.sha256 for one in payload(made).blobs if one.role == DATA
    ]


@FORMS
def test_damaged_codes_are_never_attached(t: Tercet, alice: ScopedMemory, form: str) -> None:
    made = promoted(alice, [alice.remember(FACTS[0]).id], how(form))
    flip(t, made)
    with pytest.raises(VaultDamaged, match="not what was written"):
        alice.chat("?", adapters=[made.id])


@FORMS
def test_what_leaves_is_plain_and_computes_the_same(
    t: Tercet, alice: ScopedMemory, tiny: TransformersEngine, tmp_path: Path, form: str
) -> None:
    made = promoted(alice, [alice.remember(FACTS[0]).id], replace(how(form), recipe=replace(QUICK, lr=0.1)))
    export_adapter(alice, made.id, tmp_path / "lora")
    assert STORED not in json.loads((tmp_path / "lora" / CONFIG).read_text())
    found = load(tmp_path / "lora", tiny.adapters.shapes)
    key = t.lora.use(t.vault.tenant("default"), alice.scope, made.id, tiny)
    assert content_hash(found.modules) == key
    assert {pair.b.dtype for pair in found.modules.values()} == {torch.bfloat16}
    plain, coded = tmp_path / "plain.gguf", tmp_path / "coded.gguf"
    peft_gguf(found, plain, tiny, made.id)
    export_adapter(alice, made.id, coded)
    assert coded.read_bytes() == plain.read_bytes()


def peft_gguf(found: peft.Adapter, path: Path, tiny: TransformersEngine, id: str) -> None:
    from tercet.parametric import gguf

    gguf.save(found, path, config=tiny.config, name=f"tercet {id}")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_peft_reads_an_exported_one_and_not_the_coded_file(
    t: Tercet, alice: ScopedMemory, tiny: TransformersEngine, tmp_path: Path
) -> None:
    library = pytest.importorskip("peft", reason="pip install 'tercet[models]'")
    made = promoted(alice, [alice.remember(FACTS[0]).id], replace(how("nf4"), recipe=replace(QUICK, lr=0.1)))
    export_adapter(alice, made.id, tmp_path / "lora")
    ids = torch.arange(5, 30)[None]
    key = t.lora.use(t.vault.tenant("default"), alice.scope, made.id, tiny)
    with torch.no_grad():
        base = tiny.head(tiny.read(ids))
        with tiny.adapters.using([key]):
            wanted = tiny.head(tiny.read(ids))
        theirs = library.PeftModel.from_pretrained(tiny_engine().model, tmp_path / "lora")
        torch.testing.assert_close(theirs(input_ids=ids).logits, wanted, atol=1e-4, rtol=1e-4)
    assert float((wanted - base).abs().max()) > 1e-3
    tenant, folder = t.vault.tenant("default"), tmp_path / "coded"
    folder.mkdir()
    (folder / CONFIG).write_bytes(read_blob(tenant, payload(made), CONFIG_ROLE))
    (folder / WEIGHTS).write_bytes(read_blob(tenant, payload(made), DATA))
    with pytest.raises((ValueError, KeyError, TypeError)):  # whichever: it does not load nothing in silence
        library.PeftModel.from_pretrained(tiny_engine().model, folder)
    with pytest.raises(Refused, match="only vaults keep"):
        load(folder, tiny.adapters.shapes)


def test_a_server_is_given_plain_tensors(
    t: Tercet, alice: ScopedMemory, tiny: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = promoted(alice, [alice.remember(FACTS[0]).id], how("int8"))
    far = VLLM("base", base=tiny.base, shapes=tiny.adapters.shapes, folder=tmp_path, url="http://127.0.0.1:9/v1")
    monkeypatch.setattr(far, "tell", lambda *_: None)
    key = t.lora.use(t.vault.tenant("default"), alice.scope, made.id, far)  # type: ignore[arg-type]
    assert content_hash(load(tmp_path / key, tiny.adapters.shapes).modules) == key


def test_a_form_that_nobody_knows_and_one_that_holds_nothing_finite(t: Tercet, alice: ScopedMemory) -> None:
    with pytest.raises(InvalidRequest, match="bf16, int8, nf4"):
        Teaching(stored="int4")
    ids, before = [alice.remember(FACTS[0]).id], files(t)
    with pytest.raises(Refused, match="finite"):
        promoted(alice, ids, replace(how("int8"), recipe=replace(QUICK, lr=1e30, epochs=2)))
    assert files(t) == before


def test_another_model_is_taught_in_the_same_form(alice: ScopedMemory) -> None:
    made = promoted(alice, [alice.remember(FACTS[0]).id], how("nf4"))
    assert _recorded(alice, payload(made)) == Teaching(QUICK, stored="nf4")


def coded(tmp_path: Path, form: str = "int8") -> tuple[dict[str, Any], dict[str, Tensor]]:
    save(an_adapter(), tmp_path, base="a-base", stored=form)
    return json.loads((tmp_path / CONFIG).read_text()), load_tensors((tmp_path / WEIGHTS).read_bytes())


KEY = f"{PREFIX}model.layers.0.mlp.up_proj.lora_A.weight"
Spoilt = tuple[type[TercetError], str, Callable[[dict[str, Tensor]], dict[str, Tensor]]]
SPOILT: dict[str, Spoilt] = {
    "a part is missing": (InvalidRequest, "shapes", lambda held: {k: v for k, v in held.items() if k != f"{KEY}.q"}),
    "a part too many": (InvalidRequest, "shapes", lambda held: held | {f"{KEY}.zero": torch.zeros(2)}),
    "a plain side": (InvalidRequest, "shapes", lambda held: held | {KEY: torch.zeros(2, 6)}),
    "other shapes": (InvalidRequest, "shapes", lambda held: held | {f"{KEY}.scale": held[f"{KEY}.scale"][:1].clone()}),
    "no module": (
        InvalidRequest,
        "no linear module",
        lambda held: held | {f"{PREFIX}x.lora_A.weight.q": torch.zeros(2)},
    ),
    "other dtypes": (Refused, "codec", lambda held: held | {f"{KEY}.q": held[f"{KEY}.q"].view(torch.uint8).clone()}),
    "wide scales": (Refused, "codec", lambda held: held | {f"{KEY}.scale": held[f"{KEY}.scale"].float()}),
    "not finite": (Refused, "finite", lambda held: held | {f"{KEY}.scale": torch.full((2,), torch.inf).half()}),
}


@pytest.mark.parametrize("what", SPOILT)
def test_coded_bytes_are_looked_at_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    config, held = coded(tmp_path)
    error, words, spoil = SPOILT[what]
    assert read(config, save_tensors(held), SHAPES).rank == 2
    if words != "finite":
        monkeypatch.setattr(peft, "_tensors", lambda _: pytest.fail("a tensor was read"))
    path = tmp_path / "spoilt"
    path.write_bytes(save_tensors(spoil(held)))
    for source in (path, path.read_bytes()):
        with pytest.raises(error, match=words):
            read(config, source, SHAPES)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({STORED: "int4"}, Refused), ({STORED: ["int8"]}, Refused), ({"peft_type": "LORA"}, Refused),
        ({STORED: "nf4"}, InvalidRequest), ({STORED: None}, Refused), ({"r": 3}, InvalidRequest),
        ({"r": 10**6}, Refused), ({"use_dora": True}, Refused), ({STORED: None, "peft_type": "LORA"}, InvalidRequest),
    ],
)  # fmt: skip
def test_a_configuration_that_says_something_else_is_refused(
    tmp_path: Path, setting: dict[str, object], error: type[TercetError]
) -> None:
    config, held = coded(tmp_path)
    with pytest.raises(error):
        read(config | setting, save_tensors(held), SHAPES)


@FORMS
@pytest.mark.parametrize("cut", [1, 40, 500])
def test_codes_that_were_cut_short_are_noticed(tmp_path: Path, form: str, cut: int) -> None:
    config, held = coded(tmp_path, form)
    with pytest.raises(VaultDamaged):
        read(config, save_tensors(held)[:-cut], SHAPES)


@pytest.fixture(autouse=True)
def _detached(tiny: TransformersEngine) -> Iterator[None]:
    yield
    for key in tiny.adapters.attached:
        tiny.adapters.detach(key)
