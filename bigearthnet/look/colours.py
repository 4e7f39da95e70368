"""Tables of colours: the official ones of CORINE Land Cover, and a colour map for single bands."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

NEUTRAL: Final = (160, 160, 160)
"""Grey for pixels without a value, and for codes that CORINE does not have; no class has it."""

CORINE_COLOURS: Final = {
    111: (230, 0, 77),
    112: (255, 0, 0),
    121: (204, 77, 242),
    122: (204, 0, 0),
    123: (230, 204, 204),
    124: (230, 204, 230),
    131: (166, 0, 204),
    132: (166, 77, 0),
    133: (255, 77, 255),
    141: (255, 166, 255),
    142: (255, 230, 255),
    211: (255, 255, 168),
    212: (255, 255, 0),
    213: (230, 230, 0),
    221: (230, 128, 0),
    222: (242, 166, 77),
    223: (230, 166, 0),
    231: (230, 230, 77),
    241: (255, 230, 166),
    242: (255, 230, 77),
    243: (230, 204, 77),
    244: (242, 204, 166),
    311: (128, 255, 0),
    312: (0, 166, 0),
    313: (77, 255, 0),
    321: (204, 242, 77),
    322: (166, 255, 128),
    323: (166, 230, 77),
    324: (166, 242, 0),
    331: (230, 230, 230),
    332: (204, 204, 204),
    333: (204, 255, 204),
    334: (0, 0, 0),
    335: (166, 230, 204),
    411: (166, 166, 255),
    412: (77, 77, 255),
    421: (204, 204, 255),
    422: (230, 230, 255),
    423: (166, 166, 230),
    511: (0, 204, 242),
    512: (128, 242, 230),
    521: (0, 255, 166),
    522: (166, 255, 230),
    523: (230, 242, 255),
}
"""Red, green and blue of each CORINE Land Cover level-3 code.

Source: the legend of the European Environment Agency (`clc_legend.csv`, the column RGB), which comes with every CLC
raster, https://land.copernicus.eu/en/products/corine-land-cover. Code 335, glaciers, does not occur in BigEarthNet.
"""

VIRIDIS: Final[NDArray[np.uint8]] = np.frombuffer(
    bytes.fromhex(
        "44015444025544035745055845065a45085b46095c460b5e460c5f460e61470f6247116347126547146647156747166947186a48196b"
        "481a6c481c6e481d6f481e70482071482172482273482374472575472676472777472878472a79472b7a472c7b462d7c462f7c46307d"
        "46317e45327f45347f453580453681443781443982433a83433b83433c84423d84423e854240854141864142864043874044873f4587"
        "3f47883e48883e49893d4a893d4b893d4c893c4d8a3c4e8a3b508a3b518a3a528b3a538b39548b39558b38568b38578c37588c37598c"
        "365a8c365b8c355c8c355d8c345e8d345f8d33608d33618d32628d32638d31648d31658d31668d30678d30688d2f698d2f6a8d2e6b8e"
        "2e6c8e2e6d8e2d6e8e2d6f8e2c708e2c718e2c728e2b738e2b748e2a758e2a768e2a778e29788e29798e287a8e287a8e287b8e277c8e"
        "277d8e277e8e267f8e26808e26818e25828e25838d24848d24858d24868d23878d23888d23898d22898d228a8d228b8d218c8d218d8c"
        "218e8c208f8c20908c20918c1f928c1f938b1f948b1f958b1f968b1e978a1e988a1e998a1e998a1e9a891e9b891e9c891e9d881e9e88"
        "1e9f881ea0871fa1871fa2861fa38620a48520a58521a68521a78422a78423a88323a98224aa8225ab8126ac8127ad8028ae7f29af7f"
        "2ab07e2bb17d2cb17d2eb27c2fb37b30b47a32b57a33b67935b77836b87738b97639b9763bba753dbb743ebc7340bd7242be7144be70"
        "45bf6f47c06e49c16d4bc26c4dc26b4fc36951c46853c56755c66657c66559c7645bc8625ec96160c96062ca5f64cb5d67cc5c69cc5b"
        "6bcd596dce5870ce5672cf5574d05477d05279d1517cd24f7ed24e81d34c83d34b86d44988d5478bd5468dd64490d64392d74195d73f"
        "97d83e9ad83c9dd93a9fd938a2da37a5da35a7db33aadb32addc30afdc2eb2dd2cb5dd2bb7dd29bade27bdde26bfdf24c2df22c5df21"
        "c7e01fcae01ecde01dcfe11cd2e11bd4e11ad7e219dae218dce218dfe318e1e318e4e318e7e419e9e419ece41aeee51bf1e51cf3e51e"
        "f6e61ff8e621fae622fde724"
    ),
    np.uint8,
).reshape(256, 3)
"""The colour map viridis, shape (256, 3): dark blue to yellow, with lightness that grows evenly.

Source: Nathaniel Smith and Stéfan van der Walt, 2015, https://bids.github.io/colormap/, CC0; as matplotlib has it.
"""
