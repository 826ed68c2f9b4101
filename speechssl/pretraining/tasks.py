"""The pretext tasks by name."""

from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.pretraining.contrastive import Contrastive
from speechssl.pretraining.hidden_units import HiddenUnits
from speechssl.pretraining.random_projection import RandomProjection
from speechssl.pretraining.reconstruction import Reconstruction
from speechssl.pretraining.settings import PretrainSettings
from speechssl.pretraining.two_views import TwoViews

PretextTask = Contrastive | RandomProjection | Reconstruction | HiddenUnits | TwoViews


def make_task(encoder: Encoder, settings: PretrainSettings) -> PretextTask:
    """The pretext task over ``encoder``: a model as the training loop takes it, see ``training.loss``.

    Raises:
        ConfigError: it reads log-mel rows, and the encoder does not.
    """
    mask, seed, decoder = settings.mask, settings.train.seed, settings.decoder
    match settings.task:
        case "contrastive":
            return Contrastive(
                encoder, settings.contrastive, settings.quantizer, mask, seed, decoder
            )
        case "random_projection":
            return RandomProjection(encoder, settings.random_projection, mask, seed, decoder)
        case "reconstruction":
            return Reconstruction(encoder, settings.reconstruction, mask, seed, decoder)
        case "hidden_units":
            teacher = (
                None
                if settings.hidden_units.teacher is None
                else load_encoder(settings.hidden_units.teacher)
            )
            return HiddenUnits(encoder, teacher, settings.hidden_units, mask, seed, decoder)
        case "two_views":
            return TwoViews(encoder, settings.two_views, mask, seed, decoder)
