import re
from pathlib import Path

from analysis import contrast_plots, course_plots, evaluation_plots, plot_style, space_plots
from analysis.plot_style import DARK, PALETTE, SCALE, STATUS, canvas, plain


def test_text_for_labels_is_one_line_of_bounded_length_without_tags():
    assert plain("<b>a</b>\n%{x} & é") == "&lt;b&gt;a&lt;/b&gt; %{x} &amp; é"
    assert plain("x" * 50) == "x" * 39 + "…"
    assert plain(7) == "7"


def test_every_colour_has_a_partner_on_dark_pages():
    used = {*PALETTE, *SCALE, *STATUS.values()}
    for module in (plot_style, space_plots, course_plots, contrast_plots, evaluation_plots):
        used |= set(re.findall(r'"(#[0-9A-Fa-f]{6})"', Path(module.__file__).read_text(encoding="utf-8")))
    assert used - set(DARK) - set(DARK.values()) == set()
    assert not set(DARK) & set(DARK.values())


def test_a_canvas_leaves_colours_to_its_template_and_a_finger_to_the_page():
    figure = canvas(200, xaxis_title="epoch")
    assert (figure.layout.height, figure.layout.width) == (200, None)
    assert figure.layout.template.layout.dragmode is False
