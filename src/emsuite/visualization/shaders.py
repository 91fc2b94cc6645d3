"""Shaders, in neuroglancer's dialect of GLSL, that draw the channels of an array as colors."""

from collections.abc import Sequence

# Channels of local shape descriptors that are shown together, by the number of channels: 10 in 3-D, 6 in 2-D.
DESCRIPTOR_GROUPS: dict[int, dict[str, tuple[int, ...]]] = {
    10: {
        "mean offset z, y, x": (0, 1, 2),
        "variance z, y, x": (3, 4, 5),
        "Pearson correlation zy, zx, yx": (6, 7, 8),
        "size": (9,),
    },
    6: {"mean offset y, x": (0, 1), "variance y, x": (2, 3), "Pearson correlation yx": (4,), "size": (5,)},
}

MASK_SHADER = """
#uicontrol vec3 tint color(default="#ff5050")
#uicontrol bool outside checkbox(default=false)
void main() {
  bool inside = toNormalized(getDataValue()) > 0.0;
  emitRGBA(vec4(tint, inside != outside ? 1.0 : 0.0));
}
"""


def triples(channels: int) -> dict[str, tuple[int, ...]]:
    """Return channels in groups of three, by the name of the group.

    Affinities are usually ordered so: z, y, x, then z, y, x at the next distance.
    """
    groups = [tuple(range(first, min(first + 3, channels))) for first in range(0, channels, 3)]
    return {f"channels {group[0]} to {group[-1]}": group for group in groups}


def channel_shader(groups: dict[str, tuple[int, ...]], control: str, limits: tuple[float, float]) -> str:
    """Return a shader that shows one group of channels: one channel as gray, two or three as red, green and blue.

    Args:
        groups: Channels by the name of their group, one to three per group.
        control: The name of the slider that chooses the group, if there are several.
        limits: The values that are drawn black and white at first; the control `contrast` changes them.
    """
    lines = [f"#uicontrol invlerp contrast(range=[{limits[0]:.9g}, {limits[1]:.9g}])"]
    if len(groups) > 1:
        lines.append(f"#uicontrol int {control} slider(min=0, max={len(groups) - 1}, default=0)")
        lines += [f"// {control} {number}: {name}" for number, name in enumerate(groups)]
    lines += ["void main() {", *_choice(list(groups.values()), control), "}"]
    return "\n".join(lines) + "\n"


def gray_shader(limits: tuple[float, float]) -> str:
    """Return a shader for an array without channels, in gray; see `channel_shader` for `limits`."""
    return (
        f"#uicontrol invlerp contrast(range=[{limits[0]:.9g}, {limits[1]:.9g}])\n"
        "void main() {\n  emitGrayscale(contrast());\n}\n"
    )


def _choice(groups: Sequence[tuple[int, ...]], control: str) -> list[str]:
    lines = []
    for number, group in enumerate(groups):
        values = [f"contrast(getDataValue({channel}))" for channel in group]
        emit = f"emitRGB(vec3({', '.join([*values, '0.0', '0.0'][:3])}))"
        if len(group) == 1:
            emit = f"emitGrayscale({values[0]})"
        lines.append(f"  if ({control} == {number}) {emit};" if len(groups) > 1 else f"  {emit};")
    return lines
