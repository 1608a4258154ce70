"""Peers that train through the whole network learn, and do the same under the same seed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import encoded, make_lab, striped
from PIL import Image

from bench.compare.real import network, results
from bench.compare.real.features import decoded
from bench.compare.real.peers import FINE_TUNED, ONE_PROMPT, PEERS
from bench.compare.real.results import digest_of
from bench.compare.real.stand import Side, Stand
from lmeraser.core.digest import sha256
from lmeraser.data.records import Record
from lmeraser.learn.backbone import build
from lmeraser.learn.weights import Taken

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Over a tiny network that was trained on others, which a file of weights would have given."""
    changes = {"tune.epochs": 40, "tune.frame_px": 1, "tune.frame_rate": 0.02, "tune.shift_px": 0}
    lab = make_lab(tmp_path_factory.mktemp("lab"), changes)
    images: dict[str, bytes] = {}

    def side(n: int, seed: int) -> Side:
        ids, pixels, labels = striped(n, seed)
        stored = [encoded(Image.fromarray(image[..., 0])) for image in pixels]
        images.update({sha256(image): image for image in stored})
        rows = zip(ids, stored, labels, strict=True)
        records = [
            Record(identity, sha256(image), label, f"s{place // 2}", "train")
            for place, (identity, image, label) in enumerate(rows)
        ]
        return Side(records, lab.backbone.features(decoded(stored, lab.params), lab.params.embed.batch))

    def weights(params: object, root: Path) -> Taken:
        del params, root
        model = build(lab.params.pretrain, lab.params.image, n_classes=0)
        model.load_state_dict({name: value for name, value in trained.items() if name in model.state_dict()})
        return Taken(model.eval(), [0.5], [0.25], [])

    trained = build(lab.params.pretrain, lab.params.image, n_classes=0).state_dict()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "take_weights", weights)
        patch.setattr(network, "given_backbone", lambda _: lab.backbone)
        patch.setattr(network, "BATCH", 8)
        yield Stand(lab.params, side(40, 5), side(60, 6), side(30, 7), lab.backbone.widths, images)


@pytest.mark.parametrize("peer", [ONE_PROMPT, FINE_TUNED])
def test_training_through_the_network_learns_and_is_a_function_of_the_seed(peer: str, stand: Stand) -> None:
    first, second = (PEERS[peer](stand) for _ in range(2))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    run = results.run_of("efficientnet-lite0", "signdigits", peer, stand, first)
    assert (run["accuracy"] or 0) > 0.8
    assert "gpu" not in run  # no GPU had a part here
    assert first.deletion_passes == len(stand.train.records) - stand.own
    assert first.chosen.get("rate", network.RATES[0]) in network.RATES


def test_a_device_is_told_beside_a_number_and_not_a_setting_of_its_own(stand: Stand) -> None:
    """Else what a processor measured would be measured anew for a GPU."""
    assert digest_of(stand.params) == digest_of(stand.params.model_copy(update={"device": "cuda"}))
