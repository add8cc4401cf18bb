"""Images inside a page."""

import base64
import io

import numpy as np
from PIL import Image
from reporting.builders import CE

from contraverse.reporting import AttackedPicture, Picture, ReportData, data_uri, render_report, stretched


def pixels_of(address: str) -> np.ndarray:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_an_address_holds_the_image_enlarged() -> None:
    image = np.random.default_rng(0).random((3, 8, 8))
    shown = pixels_of(data_uri(image))
    assert shown.shape == (64, 64, 3)
    assert np.array_equal(shown[::8, ::8], (image.transpose(1, 2, 0) * 255).round())
    assert (shown.reshape(8, 8, 8, 8, 3) == shown.reshape(8, 8, 8, 8, 3)[:, :1, :, :1]).all()
    assert pixels_of(data_uri(np.ones((3, 100, 90)) * 2)).shape == (100, 90, 3)


def test_a_perturbation_is_grey_where_there_is_none() -> None:
    delta = np.array([-0.1, 0.0, 0.1]).reshape(1, 1, 3).repeat(3, 0)
    assert np.allclose(stretched(delta, 0.1)[0, 0], [0, 0.5, 1])


def test_a_page_shows_them_and_its_policy_allows_no_more() -> None:
    image = data_uri(np.zeros((3, 8, 8)))
    picture = Picture("<cat>", image, [AttackedPicture("run <1>", "<cat>", "dog", image, image)])
    page = render_report(ReportData("t", [CE], pictures=[picture], examples_under="PGD at 8/255"))
    assert page.count(image) == 3
    assert "<cat>" not in page
    assert "&lt;cat&gt;" in page
    assert "img-src data:" in page
    assert "PGD at 8/255" in page
    assert "img-src" not in render_report(ReportData("t", [CE]))
