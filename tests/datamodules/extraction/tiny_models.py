"""Small models with random weights, saved as the hub has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from datamodules.extraction.dependencies import quiet_transformers

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20}
CONVOLUTIONS = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
WORDS = ["you", "said", "at", "all", ".", "no", "##thing", "ly"]


def seeded(make: Callable[[], Any]) -> Any:
    """A model with weights from one seed, larger than at the start of a training so that layers differ."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and "parametrizations" not in name:
                value.normal_(std=0.3)
    return model


def speech(kind: str, folder: Path) -> Any:
    """wav2vec2, wav2vec2-large (normalised elsewhere), hubert, wavlm, data2vec-audio or whisper."""
    with quiet_transformers() as t:
        if kind == "whisper":
            sizes: dict[str, Any] = {
                "d_model": 16,
                "encoder_layers": 2,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 20,
            }
            decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 20, "vocab_size": 50}
            tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
            config = t.WhisperConfig(**sizes, **decoder, **tokens, num_mel_bins=80)
            model = seeded(lambda: t.WhisperModel(config))
            t.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
        else:
            prefix = {"wavlm": "WavLM", "hubert": "Hubert", "data2vec-audio": "Data2VecAudio"}.get(kind, "Wav2Vec2")
            more = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"} if kind == "wav2vec2-large" else {}
            sizes = {**SMALL, **CONVOLUTIONS, **more}
            if kind == "data2vec-audio":
                sizes.update(num_conv_pos_embeddings=2, conv_pos_kernel_size=3)
            config = getattr(t, f"{prefix}Config")(**sizes)
            model = seeded(lambda: getattr(t, f"{prefix}Model")(config))
            t.Wav2Vec2FeatureExtractor(do_normalize=kind != "hubert").save_pretrained(folder)
        model.save_pretrained(folder)
    return model


def vision(kind: str, folder: Path) -> Any:
    """clip (both halves, as the hub has it), clip_vision_model, dinov2 or videomae."""
    mean, deviation, side = [0.48, 0.45, 0.4], [0.26, 0.27, 0.28], 32
    with quiet_transformers() as t:
        sizes = {**SMALL, "image_size": side, "patch_size": 8}
        if kind == "clip":
            text = {**SMALL, "vocab_size": 50, "max_position_embeddings": 8}
            config = t.CLIPConfig(vision_config=sizes, text_config=text, projection_dim=12)
            whole = seeded(lambda: t.CLIPModel(config))
            whole.save_pretrained(folder)
            model = t.CLIPVisionModel.from_pretrained(folder)
        elif kind == "clip_vision_model":
            model = seeded(lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**sizes)))
        elif kind == "dinov2":
            # Trained at 518 pixels, shown 224: here 48 and 32.
            model = seeded(lambda: t.Dinov2Model(t.Dinov2Config(**{**sizes, "image_size": 48})))
        else:
            model = seeded(lambda: t.VideoMAEModel(t.VideoMAEConfig(**sizes, num_frames=4, tubelet_size=2)))
        if kind != "clip":
            model.save_pretrained(folder)
    content: dict[str, Any] = {"image_mean": mean, "image_std": deviation, "rescale_factor": 1 / 255}
    size = {"crop_size": {"height": side, "width": side}} if kind == "dinov2" else {"size": {"shortest_edge": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps({**content, **size}))
    return model.eval()


def text(kind: str, folder: Path) -> Any:
    """bert, roberta, xlm-roberta, deberta or deberta-v2, with a tokenizer of eight words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    roberta = "roberta" in kind
    special = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[CLS]", "[PAD]", "[SEP]", "[UNK]"]
    start, pad, end, unknown = special
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 0), (end, 2)]
    )
    names = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "deberta": "Deberta", "deberta-v2": "DebertaV2"}
    prefix = names.get(kind, "Bert")
    with quiet_transformers() as t:
        fast = t.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, cls_token=start, pad_token=pad, sep_token=end, unk_token=unknown
        )
        fast.save_pretrained(folder)
        more = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]} if prefix.startswith("Deberta") else {}
        sizes = {**SMALL, "vocab_size": len(vocabulary), "pad_token_id": 1, "max_position_embeddings": 12}
        config = getattr(t, f"{prefix}Config")(**sizes, **more)
        model = seeded(lambda: getattr(t, f"{prefix}Model")(config))
        model.save_pretrained(folder)
    return model
