"""Rain drawn on a clean photograph: three models of falling rain and the five kinds made of them.

The image model is the field's. A rainy picture is the clean one plus a layer of streaks, O = B + S. In heavy rain
there are several overlapping layers, seen through a veil of drops too far to be seen one by one:
O = alpha (B + sum_t S_t) + (1 - alpha) A, with the airlight A (Yang et al., "Deep Joint Rain Detection and Removal from
a Single Image", CVPR 2017; their mask R of rainy pixels is where S_t is not 0). What differs between the models is
where S comes from and how it joins the picture:

- `DrawnRain`: streaks drawn one by one in layers of depth. A far layer holds many thin, short, faint streaks, a near
  one few that are wide, long, bright and a little out of focus.
- `NoiseRain`: the recipe of the photo editors, by which the field's synthetic sets were made: "add noise", "motion
  blur", "levels", layer mode "screen" (Wei et al., "Semi-supervised Transfer Learning for Image Rain Removal", CVPR
  2019, describe that practice).
- `PhysicalRain`: drops whose size, number, speed, image and brightness follow the physics of rain and of the camera
  (Garg and Nayar, "Vision and Rain", IJCV 75(1), 2007, and "Photorealistic Rendering of Rain Streaks", SIGGRAPH 2006).

Lengths and widths are in pixels and do not grow with the picture: they suit photographs of some 500 x 300 pixels.
Angles are in degrees from the vertical; positive means that a drop drifts to the right as it falls. A range (low, high)
is drawn from uniformly, once for each picture or streak. Unless a source is named, a number is this project's own
choice, made so that the rainy pictures score and look about like the named likeness. The mean PSNR of the kinds (Y of
BT.601 in studio range, peak 1) was measured on 130 photographs of 481 x 321 pixels.

A rainy picture depends on the clean one, the kind and the generator alone: no thread, no clock, float64 throughout and
one rounding at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Range = tuple[float, float]
Shape = tuple[int, int]

WHITE = 255.0
BLOCK = 5000  # streaks painted at once: some 100 MB, however large the picture
SURFACE_TENSION = 0.0728  # N/m, water at 20 degrees Celsius
WATER_DENSITY = 1000.0  # kg/m^3


class Rain(ABC):
    """A kind of rain: what falls, before it is known on which picture."""

    @abstractmethod
    def fall_on(self, clean: Floats, rng: np.random.Generator) -> Floats:
        """Returns the rainy picture. Both are of shape (H, W, 3) with 1 as white; the result may exceed 1."""


def render(clean: np.ndarray, kind: Rain, rng: np.random.Generator) -> np.ndarray:
    """Draws rain on a clean photograph.

    `clean` and the returned rainy picture are uint8 of shape (H, W, 3). Everything random comes from `rng`, so equal
    generators give equal bytes. Raises ValueError for an array of another type or shape.
    """
    if clean.dtype != np.uint8 or clean.ndim != 3 or clean.shape[2] != 3:
        raise ValueError(f"rain falls on uint8 pictures of shape (H, W, 3), not on {clean.dtype} {clean.shape}")
    rainy = kind.fall_on(clean / WHITE, rng)
    return np.rint(np.clip(rainy, 0.0, 1.0) * WHITE).astype(np.uint8)


class Streaks(NamedTuple):
    """Streaks to paint, one array element each: all arrays are of shape (N,).

    A streak is a rectangle, `length` by `width`, that is centred on (x, y), leans by `tilt` radians and is softened by
    `blur` pixels across (focus and the pixel's own extent) and by `fade` pixels along. `peak` is its brightness before
    the softening, which keeps its light: a streak thinner than its blur gets dimmer. Along its length the brightness
    swings by the share `swing` in `cycles` periods, with `phase` (radians) at the middle.
    """

    x: Floats
    y: Floats
    length: Floats
    width: Floats
    tilt: Floats
    peak: Floats
    blur: Floats
    fade: Floats
    swing: Floats
    cycles: Floats
    phase: Floats


def paint(shape: Shape, streaks: Streaks) -> Floats:
    """The sum of all streaks as an array of `shape` (H, W); only pixels that a streak can reach are computed."""
    painted = np.zeros(shape)
    for first in range(0, len(streaks.x), BLOCK):
        painted += _painted(shape, Streaks(*(values[first : first + BLOCK] for values in streaks)))
    return painted


def _painted(shape: Shape, streaks: Streaks) -> Floats:
    height, width = shape
    sin, cos = np.sin(streaks.tilt), np.cos(streaks.tilt)
    reach_along = (streaks.length + streaks.fade) / 2
    reach_across = (streaks.width + streaks.blur) / 2
    reach_down = reach_along * cos + reach_across * np.abs(sin)
    streak, row = _covered(streaks.y - reach_down, streaks.y + reach_down, height)
    middle = streaks.x[streak] + (row - streaks.y[streak]) * (sin / cos)[streak]
    reach_right = (reach_across / cos)[streak]
    slice_, column = _covered(middle - reach_right, middle + reach_right, width)
    streak, row = streak[slice_], row[slice_]

    right, down = column - streaks.x[streak], row - streaks.y[streak]
    sin, cos = sin[streak], cos[streak]
    along = right * sin + down * cos
    light = streaks.peak[streak] * _soft_box(along, streaks.length[streak], streaks.fade[streak])
    light *= _soft_box(right * cos - down * sin, streaks.width[streak], streaks.blur[streak])
    if streaks.swing.any():
        turn = 2 * np.pi * streaks.cycles[streak] * along / streaks.length[streak] + streaks.phase[streak]
        light *= 1 + streaks.swing[streak] * np.cos(turn)
    painted = np.bincount(row * width + column, weights=light, minlength=height * width)
    return np.asarray(painted, dtype=np.float64).reshape(shape)


def _covered(low: Floats, high: Floats, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each interval the whole numbers in it that lie in [0, size): the interval's index and the number."""
    first = np.clip(np.ceil(low), 0, size).astype(np.intp)
    count = np.maximum(np.clip(np.floor(high), -1, size - 1).astype(np.intp) - first + 1, 0)
    index = np.repeat(np.arange(len(count)), count)
    return index, np.arange(len(index)) + np.repeat(first - (np.cumsum(count) - count), count)


def _soft_box(distance: Floats, size: Floats, edge: Floats) -> Floats:
    """A box of `size` blurred by a box of `edge` (a trapezoid of the same area), its flanks rounded off."""
    top = np.minimum(size, edge)
    flank = np.clip((size + edge) / 2 - np.abs(distance), 0.0, top) / top
    return top / edge * flank * flank * (3 - 2 * flank)


def screen(picture: Floats, streaks: Floats) -> Floats:
    """Blends as a photo editor's layer mode "screen": 1 - (1 - B)(1 - S). Never darkens, never exceeds white."""
    return 1 - (1 - picture) * (1 - np.clip(streaks, 0.0, 1.0))


def add(picture: Floats, streaks: Floats) -> Floats:
    """Blends by O = B + S. Never darkens."""
    return picture + streaks


BLENDS = MappingProxyType({"screen": screen, "add": add})


@dataclass(frozen=True)
class Veil:
    """Rain too far away to be seen as streaks: O = alpha X + (1 - alpha) A (Yang et al. 2017).

    `transmission` is alpha and `airlight` A, a grey with 1 as white.
    """

    transmission: Range
    airlight: Range

    def over(self, picture: Floats, rng: np.random.Generator) -> Floats:
        """The picture of shape (H, W, 3) seen through the veil."""
        transmission, airlight = rng.uniform(*self.transmission), rng.uniform(*self.airlight)
        return transmission * picture + (1 - transmission) * airlight


@dataclass(frozen=True)
class Layer:
    """The streaks at one depth.

    `density` counts streaks on 10,000 pixels; `length` and `width` are in pixels, `brightness` is that of a streak's
    middle (1 = white); `spread` is the standard deviation of single streaks' angles in degrees. `focus_blur` softens
    the flanks (pixels; 1 is sharp, as a pixel itself has that extent) and `fade` the ends: the share of the length over
    which brightness falls off (0 is cut off, 1 rises to the middle and falls again).
    """

    density: Range
    length: Range
    width: Range
    brightness: Range
    spread: float = 1.0
    focus_blur: float = 1.0
    fade: float = 0.3

    def streaks(self, shape: Shape, direction: float, rng: np.random.Generator) -> Streaks:
        """Places the layer's streaks at random around `direction` (degrees), also those that only reach in."""
        margin = self.length[1]
        height, width = shape[0] + 2 * margin, shape[1] + 2 * margin
        count = int(rng.poisson(rng.uniform(*self.density) * height * width / 1e4))
        length = rng.uniform(*self.length, count)
        return Streaks(
            x=rng.uniform(-margin, width - margin, count),
            y=rng.uniform(-margin, height - margin, count),
            length=length,
            width=rng.uniform(*self.width, count),
            tilt=np.deg2rad(direction + self.spread * rng.standard_normal(count)),
            peak=rng.uniform(*self.brightness, count),
            blur=np.full(count, self.focus_blur),
            fade=np.maximum(self.fade * length, 1.0),
            swing=np.zeros(count),
            cycles=np.zeros(count),
            phase=np.zeros(count),
        )


@dataclass(frozen=True)
class Shower:
    """Layers of drawn streaks that fall together.

    With one entry in `directions` (ranges of degrees) all layers fall alike, with as many as there are layers each has
    its own, dealt at random. `strength` scales the brightness of the whole picture's rain.
    """

    directions: tuple[Range, ...]
    layers: tuple[Layer, ...]
    strength: Range = (1.0, 1.0)

    def streaks(self, shape: Shape, rng: np.random.Generator) -> Floats:
        """The streaks of all layers, summed, as an array of `shape` (H, W)."""
        angles = [rng.uniform(*direction) for direction in self.directions]
        order = rng.permutation(len(angles))
        strength = rng.uniform(*self.strength)
        fallen = np.zeros(shape)
        for number, layer in enumerate(self.layers):
            fallen += paint(shape, layer.streaks(shape, angles[order[number % len(angles)]], rng))
        return strength * fallen


@dataclass(frozen=True)
class DrawnRain(Rain):
    """Rain of streaks drawn one by one; each picture gets one of the `showers`, all with the same chance."""

    showers: tuple[Shower, ...]
    blend: Literal["screen", "add"]
    veil: Veil | None = None

    def fall_on(self, clean: Floats, rng: np.random.Generator) -> Floats:
        """See `Rain.fall_on`. Without a veil no pixel gets darker."""
        shower = self.showers[rng.integers(len(self.showers))]
        rainy = BLENDS[self.blend](clean, shower.streaks(_shape(clean), rng)[..., None])
        return self.veil.over(rainy, rng) if self.veil else rainy


@dataclass(frozen=True)
class Noise:
    """One layer of the photo editors' recipe: noise, blurred by motion, cut by levels.

    White Gaussian noise is blurred by a streak of `length` by `width` pixels and scaled to mean 0 and deviation 1; the
    levels then map `black` (in deviations) to 0 and `white` to `opacity`. `turn` leans this layer against the picture's
    direction (degrees).
    """

    length: Range
    width: Range
    black: Range
    white: float
    opacity: Range
    turn: float = 0.0

    def streaks(self, shape: Shape, direction: float, rng: np.random.Generator) -> Floats:
        """The layer's streaks as an array of `shape` (H, W), values in [0, 1]."""
        length, width = rng.uniform(*self.length), rng.uniform(*self.width)
        black, opacity = rng.uniform(*self.black), rng.uniform(*self.opacity)
        # The transform is periodic: the field must be longer than a streak, and such sizes are also quick to transform.
        field = tuple(-(-max(size, int(2 * length)) // 32) * 32 for size in shape)
        blurred = _moved(rng.standard_normal(field), length, width, np.deg2rad(direction + self.turn))
        return opacity * np.clip((blurred[: shape[0], : shape[1]] - black) / (self.white - black), 0.0, 1.0)


def _moved(noise: Floats, length: float, width: float, tilt: float) -> Floats:
    """White noise of deviation 1 after a motion blur by a streak; the result has deviation 1 again."""
    height, columns = noise.shape
    streak = {"x": columns // 2, "y": height // 2, "length": length, "width": width, "tilt": tilt, "peak": 1, "blur": 1}
    streak |= {"fade": 1, "swing": 0, "cycles": 0, "phase": 0}
    kernel = paint((height, columns), Streaks(**{name: np.array([value], float) for name, value in streak.items()}))
    kernel /= np.sqrt(np.sum(kernel * kernel))
    return np.fft.irfft2(np.fft.rfft2(noise) * np.fft.rfft2(kernel), s=noise.shape)


@dataclass(frozen=True)
class NoiseRain(Rain):
    """Rain of blurred noise, blended by "screen"; each picture gets one of the `mixtures` and one direction for it."""

    mixtures: tuple[tuple[Noise, ...], ...]
    direction: Range
    veil: Veil | None = None

    def fall_on(self, clean: Floats, rng: np.random.Generator) -> Floats:
        """See `Rain.fall_on`. Without a veil no pixel gets darker."""
        mixture = self.mixtures[rng.integers(len(self.mixtures))]
        direction = rng.uniform(*self.direction)
        rainy = clean
        for noise in mixture:
            rainy = screen(rainy, noise.streaks(_shape(clean), direction, rng)[..., None])
        return self.veil.over(rainy, rng) if self.veil else rainy


@dataclass(frozen=True)
class PhysicalRain(Rain):
    """Rain from drop sizes, fall speeds and a camera; every streak's shape and light follow from its drop and distance.

    - Sizes: N(D) = 8000 exp(-4.1 R^-0.21 D) drops per m^3 and mm of diameter D at a rain rate of R mm/h (Marshall and
      Palmer 1948). Drops of `smallest` to `largest` mm are drawn, evenly spread over the volume that the camera sees
      between the two ends of `distance` (metres).
    - Speed: v = 200 sqrt(a) m/s for a radius of a metres (Garg and Nayar 2007).
    - Image: at distance z a drop is f D / z pixels wide and its path f v T / z long, for a focal length of f pixels and
      an exposure of T seconds. Out of focus it is spread over a circle of f d |1/z - 1/focus| pixels for an aperture of
      d metres (thin lens).
    - Light: a drop covers a point of its path for D / v seconds, so that the point records L + beta (E - L) with
      beta = D / (v T), where L is the light behind and E, `drop_light` (1 = white), the drop's own. E hardly depends on
      L, as a drop gathers light from a wide angle (Garg and Nayar 2007); hence rain shows before dark things and
      vanishes before the sky.
    - Swing: a falling drop oscillates. Its slowest mode, of frequency sqrt(8 s / (rho a^3)) / (2 pi) with water's
      surface tension s and density rho (Rayleigh 1879), makes the streak brighter and darker along its length (Garg and
      Nayar 2006); by how much, `swing`, is our choice.
    - Fog: far drops dim the scene with an extinction of twice their cross-section, 2 integral N(D) pi D^2 / 4 dD =
      pi N0 / Lambda^3 (geometric optics), before an airlight. A photograph has no depth, so one is made up: `scene`
      metres from the lower to the upper edge, modulated by a smooth random field.
    - Lens: `lens_drops` on 100,000 pixels stick to the front glass, far out of focus, and show the mean of the scene as
      soft discs of `lens_drop_radius` pixels (ours).

    Light is added in linear units, for which the square of the pixel values stands (a display gamma of 2). `airlight`
    and `drop_light` are in these units.
    """

    rain_rate: Range
    exposure: Range
    direction: Range
    spread: float
    drop_light: Range
    airlight: Range
    scene: Range
    distance: Range
    focus: float
    lens_drops: float
    lens_drop_radius: Range
    focal_length: float = 1000.0
    aperture: float = 0.003
    smallest: float = 1.5
    largest: float = 5.0
    swing: float = 0.3

    def fall_on(self, clean: Floats, rng: np.random.Generator) -> Floats:
        """See `Rain.fall_on`."""
        shape = _shape(clean)
        slope = 4.1 * rng.uniform(*self.rain_rate) ** -0.21
        light = clean * clean
        mean = light.mean(axis=(0, 1))
        light = self._fog(light, slope, rng)
        beta = np.clip(paint(shape, self._streaks(shape, slope, rng)), 0.0, 1.0)[..., None]
        light += beta * (rng.uniform(*self.drop_light) - light)
        light += self._lens(shape, rng)[..., None] * (mean - light)
        return np.sqrt(light)

    def _streaks(self, shape: Shape, slope: float, rng: np.random.Generator) -> Streaks:
        """The drops in view, for Marshall and Palmer's Lambda (`slope`, per mm)."""
        exposure, direction = rng.uniform(*self.exposure), rng.uniform(*self.direction)
        near, far = self.distance
        margin = self.focal_length * _fall_speed(self.largest / 2000) * exposure / near / 2
        height, width = shape[0] + 2 * margin, shape[1] + 2 * margin
        volume = height * width / self.focal_length**2 * (far**3 - near**3) / 3
        excess = 1 - np.exp(-slope * (self.largest - self.smallest))
        count = int(rng.poisson(8000 / slope * np.exp(-slope * self.smallest) * excess * volume))

        distance = np.cbrt(near**3 + (far**3 - near**3) * rng.random(count))
        radius = (self.smallest - np.log1p(-excess * rng.random(count)) / slope) / 2000
        speed = _fall_speed(radius)
        scale = self.focal_length / distance
        return Streaks(
            x=rng.uniform(-margin, width - margin, count),
            y=rng.uniform(-margin, height - margin, count),
            length=scale * speed * exposure,
            width=scale * 2 * radius,
            tilt=np.deg2rad(direction + self.spread * rng.standard_normal(count)),
            peak=np.minimum(2 * radius / (speed * exposure), 1.0),
            blur=np.maximum(self.aperture * np.abs(scale - self.focal_length / self.focus), 1.0),
            fade=np.maximum(scale * 2 * radius, 1.0),
            swing=np.full(count, self.swing),
            cycles=np.sqrt(8 * SURFACE_TENSION / (WATER_DENSITY * radius**3)) / (2 * np.pi) * exposure,
            phase=rng.uniform(0, 2 * np.pi, count),
        )

    def _fog(self, light: Floats, slope: float, rng: np.random.Generator) -> Floats:
        """The scene's light behind the far rain, by a made-up depth."""
        height, width = _shape(light)
        smooth = _hats(height, 4) @ rng.standard_normal((4, 4)) @ _hats(width, 4).T
        depth = np.linspace(self.scene[1], self.scene[0], height)[:, None] * np.exp(0.5 * smooth)
        transmission = np.exp(-np.pi * 8000e-6 / slope**3 * depth)[..., None]
        return transmission * light + (1 - transmission) * rng.uniform(*self.airlight)

    def _lens(self, shape: Shape, rng: np.random.Generator) -> Floats:
        """How far drops on the lens hide the scene: (H, W), 0 to 1."""
        cover = np.zeros(shape)
        for _ in range(rng.poisson(self.lens_drops * shape[0] * shape[1] / 1e5)):
            radius, opacity = rng.uniform(*self.lens_drop_radius), rng.uniform(0.2, 0.6)
            y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
            rows, columns = np.ogrid[_around(y, 2 * radius, shape[0]), _around(x, 2 * radius, shape[1])]
            away = np.hypot(rows - y, columns - x)
            disc = opacity * _soft_box(away, np.array(2 * radius), np.array(radius))
            cover[rows, columns] = np.maximum(cover[rows, columns], disc)
        return cover


def _around(middle: float, reach: float, size: int) -> slice:
    return slice(max(int(middle - reach), 0), min(int(middle + reach) + 1, size))


def _fall_speed(radius: Floats | float) -> Floats:
    """A drop's speed in m/s at a radius in metres (Garg and Nayar 2007)."""
    return np.asarray(200 * np.sqrt(radius))


def _hats(size: int, nodes: int) -> Floats:
    """Weights (size, nodes) that interpolate linearly between values at `nodes` evenly spaced points."""
    away: Floats = np.abs(np.linspace(0, nodes - 1, size)[:, None] - np.arange(nodes))
    return np.maximum(1 - away, 0.0)


def _shape(picture: Floats) -> Shape:
    return picture.shape[0], picture.shape[1]


def _magnitudes(direction: float) -> tuple[Shower, Shower]:
    """Gentle and strong rain from far to near in one direction (degrees)."""
    around = ((direction - 3.0, direction + 3.0),)
    gentle = (
        Layer(density=(60, 110), length=(6, 12), width=(0.4, 0.8), brightness=(0.1, 0.4)),
        Layer(density=(12, 24), length=(12, 24), width=(0.8, 1.4), brightness=(0.15, 0.5), focus_blur=1.2),
        Layer(density=(1, 3), length=(24, 45), width=(1.4, 2.4), brightness=(0.2, 0.6), focus_blur=2.0, fade=0.6),
    )
    strong = (
        Layer(density=(90, 150), length=(8, 16), width=(0.5, 0.9), brightness=(0.15, 0.5)),
        Layer(density=(18, 32), length=(18, 36), width=(0.9, 1.8), brightness=(0.2, 0.6), focus_blur=1.2),
        Layer(density=(1.5, 4), length=(36, 70), width=(2.0, 4.0), brightness=(0.3, 0.7), focus_blur=2.5, fade=0.6),
    )
    return Shower(around, gentle, (0.7, 1.15)), Shower(around, strong, (0.7, 1.15))


HEAVY = DrawnRain(
    showers=(
        Shower(
            directions=((-28.0, -18.0), (-15.0, -8.0), (-4.0, 4.0), (8.0, 15.0), (18.0, 28.0)),
            layers=(
                Layer(density=(30, 70), length=(25, 80), width=(0.8, 3.0), brightness=(0.12, 0.3), fade=0.05),
                Layer(density=(25, 60), length=(12, 35), width=(0.6, 1.4), brightness=(0.15, 0.45), fade=0.1),
                Layer(density=(15, 45), length=(12, 35), width=(0.6, 1.6), brightness=(0.15, 0.5), fade=0.3),
                Layer(
                    density=(3, 8), length=(25, 60), width=(1.2, 2.4), brightness=(0.25, 0.6), focus_blur=1.4, fade=0.5
                ),
                Layer(
                    density=(0.3, 1.5),
                    length=(40, 90),
                    width=(2.0, 4.5),
                    brightness=(0.2, 0.5),
                    focus_blur=3.0,
                    fade=0.6,
                ),
            ),
            strength=(0.65, 1.45),
        ),
    ),
    blend="add",
    veil=Veil(transmission=(0.97, 1.0), airlight=(0.7, 0.9)),
)
"""Streaks in five directions at once under a thin veil, as Rain100H (Yang et al. 2017: five types of streaks; its rainy
pictures score 13.6 dB): 13.7 dB on average. Thin, because between the streaks Rain100H's pictures are hardly lighter
than the clean ones: in their dark parts the first percentile of rainy minus clean is 0 of 255 levels, here 2."""

MEDIUM = NoiseRain(
    mixtures=(
        (Noise(length=(10, 25), width=(1.0, 1.6), black=(0.2, 0.8), white=2.8, opacity=(0.6, 1.0)),),
        (Noise(length=(25, 50), width=(1.0, 2.0), black=(0.3, 0.9), white=2.8, opacity=(0.6, 1.0)),),
        (
            Noise(length=(8, 16), width=(0.8, 1.2), black=(0.3, 0.9), white=2.8, opacity=(0.5, 0.8)),
            Noise(length=(20, 45), width=(1.5, 3.0), black=(1.0, 1.6), white=3.5, opacity=(0.6, 1.0), turn=4.0),
        ),
    ),
    direction=(-45.0, 45.0),
)
"""One to two layers of dense noise streaks, fine, long or mixed, as Rain800 (some 22 to 23 dB): 22.2 dB on average."""

VARIED = DrawnRain(
    showers=tuple(shower for direction in (-54, -36, -18, 0, 18, 36, 54) for shower in _magnitudes(direction)),
    blend="screen",
)
"""Seven directions by two magnitudes, one of these 14 settings for each picture, as Rain14000 (Fu et al., CVPR 2017: 14
orientations and magnitudes; 25.2 dB): 24.9 dB on average, from 17 to 33 dB."""

LIGHT = DrawnRain(
    showers=(
        Shower(
            directions=((-30.0, 30.0),),
            layers=(
                Layer(
                    density=(20, 40),
                    length=(10, 28),
                    width=(0.6, 1.6),
                    brightness=(0.03, 0.25),
                    focus_blur=1.2,
                    fade=0.8,
                ),
                Layer(
                    density=(3, 8), length=(14, 34), width=(0.8, 2.2), brightness=(0.15, 0.6), focus_blur=1.3, fade=0.8
                ),
                Layer(
                    density=(0.3, 2), length=(20, 42), width=(1.5, 3.0), brightness=(0.4, 0.9), focus_blur=1.6, fade=0.8
                ),
            ),
            strength=(0.42, 1.15),
        ),
    ),
    blend="add",
)
"""Sparse, soft streaks of one type and direction, as Rain100L (Yang et al. 2017; 26.9 dB): 26.8 dB on average."""

UNSEEN = PhysicalRain(
    rain_rate=(20.0, 80.0),
    exposure=(1 / 400, 1 / 100),
    direction=(-15.0, 15.0),
    spread=2.0,
    drop_light=(2.0, 4.0),
    airlight=(0.3, 0.5),
    scene=(2.0, 12.0),
    distance=(0.6, 4.0),
    focus=5.0,
    lens_drops=1.0,
    lens_drop_radius=(4.0, 10.0),
)
"""Rain by another model than the other four, for testing alone, through a short telephoto lens: 26.8 dB on average. The
scene is near, so that streaks and not fog make most of the error (28.1 dB for streaks alone, 35.5 dB for fog alone)."""


KINDS: Mapping[str, Rain] = MappingProxyType(
    {"heavy": HEAVY, "medium": MEDIUM, "varied": VARIED, "light": LIGHT, "unseen": UNSEEN}
)
"""The kinds by the names that params.yaml uses."""
