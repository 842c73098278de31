import re
from html.parser import HTMLParser

import pytest

from my3dgen.evaluate.report import best_method, page, table, write_page


def score(psnr, perceptual, identity):
    return {"psnr": psnr, "psnr_image": psnr + 2, "perceptual": perceptual, "identity": identity}


@pytest.fixture
def report():
    def method(shift):
        by_yaw = [score(18.0 + shift, 0.4, 0.9) for _ in range(5)]
        return {
            "latent": "W" if shift == 0 else "alpha-space",
            "heldout": score(20.0 + shift, 0.5 - shift / 10, 0.90 + shift / 100),
            "views": score(19.0 + shift, 0.4, 0.9) | {"by_yaw": by_yaw},
        }

    return {
        "my3dgen": "0.1.0",
        "prior": {"name": "mini", "sha256": "ab" * 32, "parameters": 7_721_174},
        "quality": "standard",
        "rank": 1,
        "album": {"name": "<Ada> & co", "photos": 60, "learned": 50, "held_out": 10},
        "machine": {"device": "cpu"},
        "methods": {"prior": method(0.0), "lora": method(1.5)},
        "views": {"yaw_degrees": [-40, -20, 0, 20, 40], "source_yaw_degrees": 0, "photos": ["a.jpg"]},
        "perceptual_network": "lite0-feat",
        "identity_network": "dlib",
        "person_file_bytes": 480_000,
        "trained_parameters": 115_884,
        "seconds": {"faces": 12.0, "personalize": 300.0},
        "peak_rss_mb": 2100,
        "pictures": {"heldout": "pictures/heldout.png", "orbit_mp4": "pictures/orbit.mp4"},
        "files": {"glb": "mesh/head.glb", "ply": "mesh/head.ply"},
        "notes": ["The heads are synthetic."],
    }


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_well_formed_and_links_only_to_its_own_files(report):
    parser = Links()
    text = page(report)
    parser.feed(text)
    assert parser.open == []
    assert set(parser.links) == {
        "pictures/heldout.png",
        "pictures/orbit.mp4",
        "mesh/head.glb",
        "mesh/head.ply",
        "report.json",
    }
    assert "://" not in text


def test_page_shows_the_figures_and_marks_the_best(report):
    text = page(report)
    assert "&lt;Ada&gt; &amp; co" in text and "<Ada>" not in text
    assert "480 kB" in text and "115,884" in text and "5 minutes" in text
    assert re.search(r'class="best">21\.50<', text)
    assert "The heads are synthetic." in text


def test_best_knows_which_way_is_better(report):
    assert best_method(report, "heldout", "psnr") == "lora"
    assert best_method(report, "heldout", "perceptual") == "lora"
    report["methods"]["lora"]["heldout"]["perceptual"] = 0.9
    assert best_method(report, "heldout", "perceptual") == "prior"


def test_table_has_a_row_for_each_method(report):
    lines = table(report).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert "21.500" in lines[2]


def test_a_report_that_lacks_a_figure_is_a_defect(report, tmp_path):
    del report["peak_rss_mb"]
    with pytest.raises(Exception, match="peak_rss_mb"):
        write_page(report, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
