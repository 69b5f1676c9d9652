"""The page: switches and inputs to the left, the answer to the right. It asks no network but its own server's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.optional import require
from ifmmin.cli.failures import explained
from ifmmin.demo.answers import SPOKEN, read_upload, report
from ifmmin.demo.drawing import CSS, details, heading, headline, problem
from ifmmin.demo.examples import examples
from ifmmin.inference import Features, Predictor

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
    "frame-ancestors 'self'"
)
"""Of the page's content: the browser itself refuses whatever comes from elsewhere."""

_LARGEST = "1gb"
_FONTS = ("system-ui", "sans-serif")
_REMEMBERED = 4  # recordings whose features are kept


def import_gradio() -> Any:
    """Import Gradio with its telemetry off.

    Raises:
        InputError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it asks when it is imported
    return require("gradio", 'pip install "ifmmin[demo]"')


class Inputs:
    """Turns what the page holds into answers.

    Args:
        predictor: of a trained model.

    Attributes:
        predictor: it.
        examples: utterances to choose from, by name; none for a corpus that is not built in.
        takes_clips: whether the model's features were extracted from recordings by this library.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.examples = examples(predictor.trained_on, predictor.feature_dims)
        self.takes_clips = bool(predictor.trained_on.get("extraction"))
        self._clips: dict[tuple[str | None, str], Features] = {}
        self._media: Any = None

    def shown(
        self,
        works: tuple[bool, bool, bool],
        uploads: tuple[str | None, str | None, str | None] = (None, None, None),
        example: str | None = None,
        clip: str | None = None,
        words: str = "",
        abstain_below: float = 0.0,
    ) -> tuple[str, str]:
        """HTML of the answer and of the details; of a mistake, one line.

        Args:
            works: whether the sensors of audio, visual and text work.
            uploads: .npy files of their frames; one takes the place of the example's or the recording's frames.
            example: of :attr:`examples`.
            clip: a recording.
            words: what is said in it.
            abstain_below: the least probability of an answer; 0 never abstains.
        """
        try:
            given = dict(self._base(example, clip, words))
            for name, path in zip(MODALITIES, uploads, strict=True):
                if path is not None:
                    given[name] = read_upload(path, name)
            if not given:
                return problem("Nothing is given yet: open a .npy file of frames [T, D] for at least one sensor."), ""
            working = [name for name, switched_on in zip(MODALITIES, works, strict=True) if switched_on]
            found = report(self.predictor, given, working, abstain_below or None)
        except Exception as error:  # a page shows no traceback, whatever it was
            return problem(explained(error)), ""
        return headline(found), details(found)

    def _base(self, example: str | None, clip: str | None, words: str) -> Features:
        """Frames that uploads take the place of."""
        if clip is not None or (self.takes_clips and words.strip()):
            return self._of_clip(clip, words.strip())
        return self.examples.get(example or "", {})

    def _of_clip(self, clip: str | None, words: str) -> Features:
        """Features of a recording; those of the last ones are remembered, since a switch needs them again."""
        from ifmmin.media import MediaPredictor

        if self._media is None:
            self._media = MediaPredictor(self.predictor, self.predictor.trained_on["extraction"])
        if (clip, words) not in self._clips:
            features: Mapping[str, Any] = self._media.features(clip, text=words or None)
            if not features:
                raise InputError("nothing of this recording can be used; give another one.")
            while len(self._clips) >= _REMEMBERED:
                self._clips.pop(next(iter(self._clips)))
            self._clips[clip, words] = features
        return self._clips[clip, words]


def build(inputs: Inputs) -> Any:
    """Build the page, a ``gradio.Blocks``.

    Args:
        inputs: that answer it.
    """
    gr = import_gradio()
    predictor, first = inputs.predictor, next(iter(inputs.examples), None)
    start = inputs.shown((True, True, True), example=first)
    given: dict[str, Any] = {}
    with gr.Blocks(title="What if a sensor breaks?", analytics_enabled=False) as page:
        gr.HTML(heading(predictor))
        with gr.Row():  # on a narrow screen the answer follows its switches
            with gr.Column(scale=2, min_width=280), gr.Group():
                switches = [
                    gr.Checkbox(True, label=f"{SPOKEN[name]} works", elem_id=f"works-{name}") for name in MODALITIES
                ]
            with gr.Column(scale=5, min_width=280):
                live = "element.setAttribute('aria-live', 'polite')"
                said = gr.HTML(start[0], elem_id="answer", js_on_load=live)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                if inputs.examples:
                    label, info = "Utterance", "drawn anew for this page; after its number, the true answer"
                    given["example"] = gr.Radio([*inputs.examples], value=first, label=label, info=info)
                if inputs.takes_clips:
                    given["clip"] = gr.File(label="Recording (video or sound, up to 30 s)", height=150)
                    given["words"] = gr.Textbox(label="What is said in it")
                if predictor.class_names:
                    given["abstain_below"] = gr.Slider(
                        0, 1, 0, step=0.05, label="Abstain below this probability", info="0: never"
                    )
                with gr.Accordion("Features of your own (.npy)", open=not (first or inputs.takes_clips)):
                    files = [
                        gr.File(label=f"{_labelled(name)}: frames [T, {dim}]", height=150, elem_id=f"file-{name}")
                        for name, dim in zip(MODALITIES, predictor.feature_dims, strict=True)
                    ]
            with gr.Column(scale=5, min_width=280):
                rest = gr.HTML(start[1], elem_id="details")

        def answer(audio: bool, visual: bool, text: bool, *values: Any) -> tuple[str, str]:
            named = dict(zip(given, values[3:], strict=True))
            named["words"] = named.get("words") or ""
            named["abstain_below"] = named.get("abstain_below") or 0.0
            return inputs.shown((audio, visual, text), (values[0], values[1], values[2]), **named)

        changing = [*switches, *files, *given.values()]
        triggers = [part.submit if isinstance(part, gr.Textbox) else part.change for part in changing]
        gr.on(
            triggers,
            answer,
            changing,
            [said, rest],
            show_progress="minimal" if inputs.takes_clips else "hidden",
            trigger_mode="always_last",
            concurrency_limit=1,
            api_visibility="private",
        )
    return page


def _labelled(modality: str) -> str:
    """Name of a modality, with the one that errors call it by."""
    return modality if SPOKEN[modality] == modality else f"{SPOKEN[modality]} ({modality})"


def application(page: Any) -> Any:
    """The page as an ASGI application, which names what a browser may load: nothing from elsewhere."""
    from fastapi import FastAPI  # comes with Gradio

    gr = import_gradio()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    quiet = {"body_text_color_subdued": "*neutral_600", "block_info_text_color": "*neutral_600"}  # for their contrast
    theme = gr.themes.Default(font=_FONTS, font_mono=("ui-monospace", "monospace")).set(**quiet)
    mounted = gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        show_error=False,
        max_file_size=_LARGEST,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme,
        css=CSS,
    )

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await mounted(scope, receive, named)

    return guarded
