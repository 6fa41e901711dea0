import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from spp_scl.errors import UserError
from spp_scl.methods import check_settings, list_methods, load_method, require_settings
from spp_scl.params import FinetunedParams, Params, load_params
from spp_scl.recipe import choose_recipe
from spp_scl.training.recipe import read_recipe
from tests.recipes import SETTINGS

COMMITTED = Path(__file__).parent.parent / "params.yaml"


def committed() -> dict:
    return YAML(typ="safe").load(COMMITTED)


def write(path: Path, **literals: str) -> Path:
    """The committed values with some replaced by YAML text; `a__b` is the key `b` of the section `a`."""
    values = committed()
    for number, name in enumerate(literals):
        *sections, key = name.split("__")
        group = values
        for section in sections:
            group = group[section]
        group[key] = f"<{number}>"
    # JSON is YAML too.
    text = json.dumps(values, indent=1)
    for number, literal in enumerate(literals.values()):
        text = text.replace(f'"<{number}>"', literal)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_params(path)
    return str(caught.value)


def method_refusal(path: Path) -> str:
    """Of a method's own parameters: before features are computed."""
    params = load_params(path)
    with pytest.raises(UserError) as caught:
        require_settings(params)
    return str(caught.value)


def leaves(values: dict, prefix: str = "") -> dict:
    found = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_the_committed_parameters_load_with_the_values_and_types_that_the_file_has():
    values = load_params(COMMITTED).model_dump()
    loaded = leaves(values.pop("methods") | values)
    written = leaves(committed())
    assert loaded == written
    assert {key: type(value) for key, value in loaded.items()} == {
        key: type(value) for key, value in written.items()
    }


def test_the_file_of_the_current_folder_is_read_where_none_is_named(tmp_path, monkeypatch):
    write(tmp_path / "params.yaml", seed="7")
    monkeypatch.chdir(tmp_path)
    assert load_params().seed == 7


@pytest.mark.parametrize("key", ["sed", "train__patienc", "text_features__max_position", "tsne__Perplexity"])
def test_an_unknown_key_is_refused_by_its_full_name(tmp_path, key):
    message = refusal(write(tmp_path / "params.yaml", **{key: "1"}))
    assert f"{key.replace('__', '.')}: unknown key" in message
    assert str(tmp_path / "params.yaml") in message


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("aplha", "alpha"),
        ("train__patienc", "train.patience"),
        ("text_features__weigths", "text_features.weights"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(tmp_path, key, near):
    message = refusal(write(tmp_path / "params.yaml", **{key: "1"}))
    assert f"{key.replace('__', '.')}: unknown key; did you mean {near}?" in message
    assert "did you mean" not in refusal(write(tmp_path / "params.yaml", qqqq="1"))


def test_a_missing_key_is_refused_by_its_full_name(tmp_path):
    for section, key in [(None, "alpha"), (None, "train"), ("train", "patience"), ("tsne", "perplexity")]:
        values = committed()
        del (values[section] if section else values)[key]
        (tmp_path / "params.yaml").write_text(json.dumps(values))
        assert f"{section + '.' if section else ''}{key}: missing" in refusal(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("key", "literal", "shown", "allowed"),
    [
        ("seed", '"3"', "'3'", "integer"),
        ("seed", "true", "True", "integer"),
        ("seed", "1.5", "1.5", "integer"),
        ("seed", "42.0", "42.0", "integer"),
        ("seed", "null", "None", "integer"),
        ("alpha", '"0.5"', "'0.5'", "number"),
        ("alpha", "true", "True", "number"),
        ("train__threads", "[2]", "[2]", "integer"),
        ("finetuned__learning_rate", "small", "'small'", "number"),
        ("image_features__weights", "5", "5", "string"),
        ("dataset", "3", "3", "hfm"),
        ("dataset", "[]", "[]", "hfm"),
        ("method", "{}", "{}", "spp_scl"),
        ("split__protocol", "true", "True", "grouped"),
    ],
)
def test_a_wrong_type_is_refused_with_the_key_the_value_and_what_is_allowed(
    tmp_path, key, literal, shown, allowed
):
    message = refusal(write(tmp_path / "params.yaml", **{key: literal}))
    assert f"{key.replace('__', '.')}: {shown}: " in message
    assert allowed in message


@pytest.mark.parametrize("literal", ["5", "[]", "text", "null"])
def test_a_section_that_holds_no_keys_is_refused_by_its_name(tmp_path, literal):
    assert "  train: " in refusal(write(tmp_path / "params.yaml", train=literal))


@pytest.mark.parametrize(
    ("key", "literal", "allowed"),
    [
        ("dataset", "imdb", ["sample", "mvsa_single", "mvsa_multiple", "hfm", "own"]),
        ("method", "spp-scl", ["spp_scl"]),
        ("encoders", "thawed", ["frozen", "live", "finetuned"]),
        ("seed", "-1", ["0"]),
        ("seed", str(2**32), [str(2**32)]),
        ("alpha", "-0.1", ["0"]),
        ("alpha", ".nan", ["finite"]),
        ("alpha", ".inf", ["finite"]),
        ("sample__pairs", "59", ["60"]),
        ("sample__noise", "1.5", ["1"]),
        ("clean__missing_image", "keep", ["drop", "blank", "error"]),
        ("clean__empty_text", "Drop", ["drop", "blank", "error"]),
        ("split__protocol", "random", ["auto", "published", "stratified", "grouped"]),
        ("image_features__batch_size", "0", ["1"]),
        ("image_features__precision", "fp8", ["auto", "fp32", "bf16", "fp16"]),
        ("image_features__weights", '""', ["1 character"]),
        ("text_features__max_positions", "2", ["3"]),
        ("text_features__max_positions", "513", ["512"]),
        ("train__keep", "first", ["best", "last"]),
        ("train__threads", "0", ["1"]),
        ("train__weights", '""', ["1 character"]),
        ("finetuned__learning_rate", "0.0", ["0"]),
        ("finetuned__weight_decay", "-1e-6", ["0"]),
        ("finetuned__warmup", "1.1", ["1"]),
        ("finetuned__decay", "cosine", ["linear", "none"]),
        ("finetuned__clip", "-1.0", ["0"]),
        ("finetuned__accumulation", "0", ["1"]),
        ("finetuned__precision", "fp16", ["auto", "fp32", "bf16"]),
        ("train__patience", "-1", ["0"]),
        ("tsne__perplexity", "0.0", ["0"]),
    ],
)
def test_an_impossible_value_is_refused_with_the_key_and_what_is_allowed(tmp_path, key, literal, allowed):
    message = refusal(write(tmp_path / "params.yaml", **{key: literal}))
    assert f"  {key.replace('__', '.')}: " in message
    told = message.rsplit(": ", 1)[1]
    assert all(word in told for word in allowed)


@pytest.mark.parametrize(
    ("key", "literal", "shown", "allowed"),
    [
        ("fusion", "both", "'both'", ["sample", "batch", "none"]),
        ("alpha", "-0.1", "-0.1", ["0"]),
        ("alpha", '"0.5"', "'0.5'", ["number"]),
        ("dropout", "1.0", "1.0", ["0.99"]),
        ("dropout", "-0.1", "-0.1", ["0"]),
        ("dropout", ".nan", "nan", []),
        ("dropout", "null", "None", ["number"]),
        ("epochs", "0", "0", ["1"]),
        ("epochs", "[150]", "[150]", ["integer"]),
        ("batch_size", "1", "1", ["2"]),
        ("learning_rate", "0.0", "0.0", ["0"]),
        ("learning_rate", "small", "'small'", ["number"]),
        ("weight_decay", "-1e-6", "-1e-06", ["0"]),
        ("lr_step", "0", "0", ["1"]),
        ("lr_decay", "0.0", "0.0", ["0"]),
        ("lr_decay", "1.1", "1.1", ["1"]),
        ("lr_decay", ".nan", "nan", []),
        ("ce_weight", "-1.0", "-1.0", ["0"]),
        ("temperature", "0.0", "0.0", ["0"]),
        ("step2", "sometimes", "'sometimes'", ["gated", "always", "never", "merged"]),
    ],
)
def test_an_impossible_value_of_the_method_is_refused_with_the_key_and_what_is_allowed(
    tmp_path, key, literal, shown, allowed
):
    message = method_refusal(write(tmp_path / "params.yaml", **{f"spp_scl__{key}": literal}))
    assert f"  spp_scl.{key}: {shown}: " in message
    told = message.rsplit(": ", 1)[1]
    assert all(word in told for word in allowed)


def test_an_unknown_key_of_the_method_is_answered_with_the_nearest_known_one(tmp_path):
    message = method_refusal(write(tmp_path / "params.yaml", spp_scl__epoch="1", spp_scl__qqqq="1"))
    assert message.splitlines()[0] == "params.yaml:"
    assert "  spp_scl.epoch: unknown key; did you mean spp_scl.epochs?" in message
    assert "  spp_scl.qqqq: unknown key\n" in f"{message}\n"


def test_a_missing_key_of_the_method_and_a_missing_section_are_refused_by_name(tmp_path):
    values = committed()
    del values["spp_scl"]["dropout"]
    (tmp_path / "params.yaml").write_text(json.dumps(values))
    assert "  spp_scl.dropout: missing" in method_refusal(tmp_path / "params.yaml")
    del values["spp_scl"]
    (tmp_path / "params.yaml").write_text(json.dumps(values))
    assert "spp_scl: missing" in method_refusal(tmp_path / "params.yaml")


@pytest.mark.parametrize("literal", ["5", "[]", "text", "null"])
def test_a_method_s_section_that_holds_no_keys_is_refused_by_its_name(tmp_path, literal):
    assert "  spp_scl: " in refusal(write(tmp_path / "params.yaml", spp_scl=literal))


@pytest.mark.parametrize("name", list_methods())
def test_the_committed_parameters_of_every_method_are_right(name):
    params = load_params(COMMITTED).model_copy(update={"method": name})
    checked = check_settings(name, choose_recipe(params)["settings"])
    assert type(checked) is load_method(name).params


def test_a_recipe_has_the_method_s_parameters_and_no_other_s():
    params = load_params(COMMITTED)
    others = {"another": {"width": 3}}
    recipe = choose_recipe(params.model_copy(update={"methods": {**params.methods, **others}}))
    assert recipe == choose_recipe(params)
    assert recipe.keys() == {"method", "encoders", "settings"}
    assert recipe["method"] == "spp_scl"
    assert recipe["settings"].keys() == type(SETTINGS).model_fields.keys()
    for change in (
        {"train": params.train.model_copy(update={"threads": 1})},
        {"finetuned": params.finetuned.model_copy(update={"warmup": 0.5})},
        {"image_features": params.image_features.model_copy(update={"seed": 1})},
        {"seed": 1},
    ):
        assert choose_recipe(params.model_copy(update=change)) == recipe, change


def test_a_method_s_alpha_that_is_null_is_the_top_one(tmp_path):
    path = tmp_path / "params.yaml"
    assert committed()["spp_scl"]["alpha"] is None
    assert choose_recipe(load_params(write(path, alpha="0.3")))["settings"]["alpha"] == 0.3
    of_its_own = load_params(write(path, alpha="0.3", spp_scl__alpha="0.4"))
    assert choose_recipe(of_its_own)["settings"]["alpha"] == 0.4
    assert (
        choose_recipe(load_params(write(path, alpha="0.3", spp_scl__alpha="0.0")))["settings"]["alpha"] == 0
    )


def test_the_encoders_are_of_the_recipe_where_they_are_in_the_loop(tmp_path):
    path = tmp_path / "params.yaml"
    live = choose_recipe(load_params(write(path, encoders="live", text_features__max_positions="9")))
    assert live["image"] == {"weights": "untrained", "seed": 42}  # of the sample
    assert live["text"] == {"weights": "untrained", "seed": 42, "max_positions": 9}
    assert "finetuned" not in live
    finetuned = choose_recipe(load_params(write(path, encoders="finetuned", finetuned__warmup="0.5")))
    assert finetuned["finetuned"]["warmup"] == 0.5
    assert finetuned["finetuned"].keys() == FinetunedParams.model_fields.keys()


@pytest.mark.parametrize("encoders", ["frozen", "live", "finetuned"])
def test_the_recipe_that_is_read_is_the_one_that_was_written(tmp_path, encoders):
    params = load_params(write(tmp_path / "params.yaml", encoders=encoders, spp_scl__dropout="0.25"))
    written = choose_recipe(params)
    (tmp_path / "recipe.json").write_text(json.dumps(written))
    found = read_recipe(tmp_path / "recipe.json")
    assert (found.method, found.encoders, found.settings.dropout) == ("spp_scl", encoders, 0.25)
    assert found.settings.model_dump() == written["settings"]
    assert found.sources == {name: written[name] for name in ("image", "text") if name in written}
    assert found.finetuned == (params.finetuned if encoders == "finetuned" else None)
    written["settings"]["dropout"] = 2.0
    (tmp_path / "recipe.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match=r"spp_scl\.dropout: 2\.0: "):
        read_recipe(tmp_path / "recipe.json")


def test_the_outermost_possible_values_are_accepted(tmp_path):
    params = load_params(
        write(
            tmp_path / "params.yaml",
            seed=str(2**32 - 1),
            alpha="0.0",
            sample__pairs="60",
            text_features__max_positions="512",
            spp_scl__dropout="0.0",
            spp_scl__batch_size="2",
            spp_scl__lr_decay="1.0",
            train__patience="0",
            finetuned__warmup="1.0",
            finetuned__clip="0.0",
        )
    )
    require_settings(params)
    settings = params.methods["spp_scl"]
    assert (params.seed, params.alpha, params.sample.pairs) == (4294967295, 0.0, 60)
    assert (params.text_features.max_positions, settings["dropout"]) == (512, 0.0)
    assert (settings["batch_size"], settings["lr_decay"], params.train.patience) == (2, 1.0, 0)
    assert (params.finetuned.warmup, params.finetuned.clip) == (1.0, 0.0)


def test_a_number_in_exponent_notation_without_a_point_is_a_number_as_in_dvc(tmp_path):
    path = write(
        tmp_path / "params.yaml",
        finetuned__learning_rate="1e-4",
        spp_scl__learning_rate="1e-4",
        spp_scl__ce_weight="5",
    )
    params = load_params(path)
    settings = check_settings("spp_scl", choose_recipe(params)["settings"])
    assert params.finetuned.learning_rate == settings.learning_rate == 0.0001
    assert settings.ce_weight == 5


def test_a_word_that_yaml_1_1_took_for_a_truth_value_stays_a_word(tmp_path):
    params = load_params(write(tmp_path / "params.yaml", image_features__weights="on"))
    assert params.image_features.weights == "on"


def test_several_mistakes_are_told_at_once_each_on_its_line(tmp_path):
    path = write(tmp_path / "params.yaml", sed="1", seed='"3"', train__threads="0", split__protocol="random")
    lines = refusal(path).splitlines()
    assert lines[0] == f"{path}:"
    assert sorted(line.split(":")[0].strip() for line in lines[1:]) == [
        "sed",
        "seed",
        "split.protocol",
        "train.threads",
    ]


def test_a_missing_file_is_named(tmp_path):
    assert str(tmp_path / "absent.yaml") in refusal(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("dataset: sample\nseed: [1\n\n", 4),
        ("dataset: sample\nalpha: 1.0\nalpha: 2.0\n", 3),
        ("dataset: sample\n  seed: 1\n", 2),
        ("dataset: !unknown sample\n", 1),
    ],
)
def test_what_is_not_yaml_is_refused_with_the_line(tmp_path, text, line):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    message = refusal(path)
    assert "not valid YAML" in message
    assert f"{path}:{line}: " in message


@pytest.mark.parametrize(
    "literal",
    [
        "2020-13-45",
        "!!int abc",
        "!!float abc",
        '!!int ""',
        "!!bool maybe",
        r'"\Uffffffff"',
        pytest.param("[" * 3000, id="deeply nested"),
    ],
)
def test_a_value_that_yaml_cannot_make_is_refused_without_a_traceback(tmp_path, literal):
    path = write(tmp_path / "params.yaml", image_features__weights=literal)
    assert str(path) in refusal(path)


@pytest.mark.parametrize("key", ["seed", "alpha"])
def test_a_number_of_thousands_of_digits_is_refused_by_its_key_without_them(tmp_path, key):
    message = refusal(write(tmp_path / "params.yaml", **{key: f"-0x{'f' * 5000}"}))
    assert f"  {key}: " in message
    assert len(message) < 500


def test_a_value_that_doubles_with_every_line_is_refused_without_being_written_out(tmp_path):
    # Each line is an alias twice over: the last stands for 2 ** 40 values.
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)), "seed: *a39"]
    (tmp_path / "params.yaml").write_text("\n".join(lines))
    message = refusal(tmp_path / "params.yaml")
    assert "  seed: " in message
    assert len(message) < 10_000


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"- 1\n- 2\n", b"sample\n", b"3\n"])
def test_a_file_without_keys_and_values_is_refused(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    assert str(path) in refusal(path)


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"dataset: caf\xe9\n")
    assert str(path) in refusal(path)


def test_a_byte_order_mark_and_crlf_line_ends_change_nothing(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + COMMITTED.read_bytes().replace(b"\n", b"\r\n"))
    assert load_params(path) == load_params(COMMITTED)


def test_loaded_parameters_cannot_be_changed():
    params = load_params(COMMITTED)
    assert isinstance(params, Params)
    with pytest.raises(ValueError, match="frozen"):
        params.train.threads = 1
