"""Settings: every mistake is told at once, with what was meant."""

from __future__ import annotations

import pytest
import yaml

from surveyproc.config.compose import compose_config, config_folder, setting_lines
from surveyproc.config.run import load_run_config
from surveyproc.errors import UsageError


def problems(*overrides: str) -> list[str]:
    """Lines of the refusal."""
    with pytest.raises(UsageError) as caught:
        load_run_config(overrides)
    return [line.strip() for line in caught.value.what.splitlines()[1:]]


def test_defaults_are_those_of_the_files():
    config = load_run_config()
    assert config.cluster.kind == "auto"
    engine = yaml.safe_load((config_folder() / "engine" / "default.yaml").read_text())
    assert config.to_dict()["engine"] == engine


def test_overrides_reach_their_setting_and_nothing_else():
    config = load_run_config(["cluster=none", "engine.batch_size=32", "output.carry=[a,b]", "engine.views=8"])
    default = load_run_config(["cluster=none"])
    assert (config.engine.batch_size, config.engine.views) == (32, 8)
    assert config.output.carry == ["a", "b"]
    assert config.limits == default.limits
    assert config.cluster == default.cluster


def test_all_mistakes_are_told_together():
    found = problems(
        "engine.batchsize=32",
        "cluster=nome",
        "engine.views=3",
        "engine.batch_size=many",
        "limits.max_reject_fraction=1.5",
        "cluster.actors=0",
        "engine.threads=1.5",
    )
    assert len(found) == 7
    text = "\n".join(found)
    assert "unknown setting 'engine.batchsize'. Did you mean 'engine.batch_size'?" in text
    assert "cluster has no option 'nome'. Did you mean 'none'? Options: address, auto, local, none" in text
    assert "engine.views=3: must be 1, 2, 4 or 8" in text
    assert "engine.batch_size=many: must be int" in text
    assert "limits.max_reject_fraction=1.5: must be between 0 and 1" in text
    assert "cluster.actors=0: must be at least 1" in text
    assert "engine.threads=1.5: must be int" in text


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("egine.views=2", "Did you mean 'engine.views'?"),
        ("engine.precision=fp16", "must be one of auto, bf16, fp32"),
        ("engine.device=tpu", "must be one of auto, cpu, cuda"),
        ("engine.shard_rows=-5", "must be above 0"),
        ("engine.draws=0", "must be above 0"),
        ("output.index=maybe", "must be bool"),
        ("output.carry=ra", "must be list"),
        ("engine.views=true", "must be int or null"),
        ("cluster=address", "needs cluster.address"),
        ("cluster=ray://head:10001", "surveyproc submit --address http://HEAD:8265"),
        ("cluster=http://head:8265", "must be HOST:PORT"),
        ("cluster.wait_seconds=60", "needs cluster.actors"),
        ("cluster.wait_seconds=-1", "must not be negative"),
        ("cluster.object_store_mb=10", "Ray needs 80 or more"),
        ("cluster.memory_gb_per_actor=0", "must be above 0"),
        ("engine.batch_size=[", "engine.batch_size=["),
        ("nonsense", "nonsense"),
    ],
)
def test_a_mistake_says_what_it_should_be(override, says):
    found = problems(override)
    assert len(found) == 1
    assert says in found[0]


def test_a_single_mistake_is_called_one():
    with pytest.raises(UsageError, match="a setting is wrong:") as caught:
        load_run_config(["engine.views=3"])
    assert caught.value.exit_code == 2
    assert "surveyproc run --settings" in caught.value.fix


def test_an_address_is_short_for_a_running_cluster():
    config = load_run_config(["cluster=head:6379"])
    assert (config.cluster.kind, config.cluster.address) == ("address", "head:6379")


def test_an_integer_is_a_number():
    config = load_run_config(
        ["engine.shard_seconds=5", "limits.max_reject_fraction=1", "cluster.cpus_per_actor=1"]
    )
    assert config.engine.shard_seconds == 5.0
    assert isinstance(config.engine.shard_seconds, float)
    assert config.limits.max_reject_fraction == 1.0


def test_wrong_overrides_are_left_out_of_what_is_composed():
    config, found = compose_config("run", ["engine.views=2", "engine.nothing=1"])
    assert config["engine"]["views"] == 2
    assert "nothing" not in config["engine"]
    assert len(found) == 1


def test_the_settings_are_listed_with_their_defaults():
    assert "engine.views=4" in setting_lines("run", ["engine.views=4"])
    lines = setting_lines("run")
    assert "engine.batch_size=64" in lines
    assert "engine.views=null" in lines
    assert "cluster.kind=auto" in lines
