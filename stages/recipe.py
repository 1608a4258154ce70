"""recipe: backbone, skeleton, code and params of tuning -> recipe.json, on which every slot depends."""

from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.pipeline.recipe import save_recipe
from stages.runtime.entry import enter


def recipe(layout: Layout, params: Params, _: list[str]) -> None:
    save_recipe(layout, params)


if __name__ == "__main__":
    enter(recipe)
