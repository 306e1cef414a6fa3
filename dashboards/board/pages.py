"""Every page of the app, once: navigation, tests and the guide's table are made from this list.

To add a page, write its view and add its entry here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """One page of the app.

    Attributes:
        name: the view's file, `views/NAME.py`; its address is the name with hyphens.
        title: how it is called in the navigation and in the guide.
        icon: a Material symbol.
        landmark: words that stand there once it is drawn on a record with decisions.
        question: what it answers; the guide opens with it.
    """

    name: str
    title: str
    icon: str
    landmark: str
    question: str

    @property
    def path(self) -> str:
        """Its address below the app's; the first page stands at the root."""
        return "" if self is PAGES[0] else self.name.replace("_", "-")

    @property
    def view(self) -> str:
        """The file that draws it."""
        return f"views/{self.name}.py"


PAGES = (
    Page(
        name="home",
        title="Home",
        icon="home",
        landmark="Lift of",
        question="How does every experiment stand?",
    ),
    Page(
        name="verdict",
        title="Verdict",
        icon="gavel",
        landmark="All numbers",
        question="What do we decide, how sure are we, and what next?",
    ),
    Page(
        name="experiment",
        title="Experiment",
        icon="science",
        landmark="What next?",
        question="Did a variant win, by how much, how sure, and what next?",
    ),
    Page(
        name="bandit",
        title="Bandit",
        icon="casino",
        landmark="Estimated regret vs best variant",
        question="What do the policies show, to whom, and how much chance is left in it?",
    ),
    Page(
        name="artwork",
        title="Artwork and rows",
        icon="imagesmode",
        landmark="In numbers",
        question="The pictures, titles and rows themselves:",
    ),
    Page(
        name="page",
        title="Whole page",
        icon="web",
        landmark="Catalogue coverage",
        question="Was it the row, the title or the picture?",
    ),
    Page(
        name="library",
        title="Library",
        icon="local_library",
        landmark="concluded",
        question="What did past experiments find, and how much of it is to be believed?",
    ),
    Page(
        name="what_if",
        title="What if",
        icon="psychology_alt",
        landmark="Evaluate",
        question="What would another policy have earned on the same log?",
    ),
    Page(
        name="preview",
        title="Preview",
        icon="live_tv",
        landmark="What each variant would show",
        question="What would each variant show to this viewer now, with which chances, and why?",
    ),
    Page(
        name="decisions",
        title="Decisions",
        icon="manage_search",
        landmark="The latest decisions",
        question="What happened in this one decision?",
    ),
    Page(
        name="health",
        title="Health",
        icon="monitor_heart",
        landmark="Covariate drift (PSI)",
        question="Can the record be trusted, and does the service keep up?",
    ),
    Page(
        name="glossary",
        title="Glossary",
        icon="menu_book",
        landmark="States",
        question="What does a word on these pages mean?",
    ),
)
"""In the order of the navigation; the first is where one arrives."""
