"""What a resumed run takes over from its record, so that runs of earlier versions go on."""

import json

from authface_train.commands.train import _settings_of_run
from authface_train.presets import load_preset
from authface_train.settings import PriorSettings, RestorerSettings


def write_record(folder, stage, *removed):
    settings = load_preset(stage, "paper").model_dump(mode="json")
    for name in removed:
        section, _, key = name.rpartition(".")
        del (settings[section] if section else settings)[key]
    (folder / "run.json").write_text(json.dumps({"stage": stage, "settings": settings}))


def test_settings_that_a_run_did_not_know_stay_as_it_behaved(tmp_path):
    assert _settings_of_run(tmp_path, RestorerSettings) == {}
    write_record(tmp_path, "restorer")
    assert _settings_of_run(tmp_path, RestorerSettings) == {"source": "ffhq"}
    write_record(tmp_path, "restorer", "source", "facial.reduction")
    assert _settings_of_run(tmp_path, RestorerSettings) == {
        "source": "workspace",
        "facial.reduction": "patch-mean",
    }
    write_record(tmp_path, "prior", "source", "ema_every")
    assert _settings_of_run(tmp_path, PriorSettings) == {"source": "workspace", "ema_every": 1}
