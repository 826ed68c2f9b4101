"""The pretext tasks by name.

A new task ``my_task`` touches three files of the package, and the table of files in
``tests/test_layers.py``:

1. ``pretraining/my_task.py``: ``MyTaskConfig``, its settings, and ``MyTask``, a ``PretextTask``
   whose ``forward`` gives the loss of a batch. ``reconstruction.py`` is the shortest one to start
   from.
2. ``pretraining/settings.py``: its name in ``TaskName``, and a table of the same name in
   ``TaskSettings``.
3. This file: a case of ``make_task``. Type checking fails while a name has none.

Then ``--set task=my_task --set my_task.setting=value`` works, and so do presets.
"""

from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.pretraining.contrastive import Contrastive
from speechssl.pretraining.hidden_units import HiddenUnits
from speechssl.pretraining.masked_prediction import PretextTask
from speechssl.pretraining.random_projection import RandomProjection
from speechssl.pretraining.reconstruction import Reconstruction
from speechssl.pretraining.settings import TaskSettings
from speechssl.pretraining.two_views import TwoViews


def make_task(encoder: Encoder, settings: TaskSettings, seed: int = 0) -> PretextTask:
    """Make the pretext task that the settings name, over ``encoder``.

    Args:
        encoder: what is pretrained.
        settings: which task, and how it is set.
        seed: of everything that the task draws.

    Raises:
        ConfigError: the task reads log-mel rows, and the encoder does not.
        CheckpointError: the teacher cannot be read.
    """
    mask = settings.mask
    decoder = settings.decoder

    match settings.task:
        case "contrastive":
            quantizer = settings.quantizer
            return Contrastive(encoder, settings.contrastive, quantizer, mask, seed, decoder)

        case "random_projection":
            return RandomProjection(encoder, settings.random_projection, mask, seed, decoder)

        case "reconstruction":
            return Reconstruction(encoder, settings.reconstruction, mask, seed, decoder)

        case "hidden_units":
            path = settings.hidden_units.teacher
            teacher = None if path is None else load_encoder(path)
            return HiddenUnits(encoder, teacher, settings.hidden_units, mask, seed, decoder)

        case "two_views":
            return TwoViews(encoder, settings.two_views, mask, seed, decoder)
