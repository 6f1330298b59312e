"""Renders chat templates with Python's jinja2 exactly as Hugging Face transformers sets it up: the reference that
Galley's engine must match byte for byte. Needs jinja2 and transformers."""
import datetime

import jinja2
import transformers.utils.chat_template_utils as ctu


class _FixedNow(datetime.datetime):
    """strftime_now() at 1970-01-01 00:00:00, so that goldens repeat."""

    @classmethod
    def now(cls, tz=None):
        return cls(1970, 1, 1)


def compile_template(source):
    template = ctu._cached_compile_jinja_template(source)
    template.environment.globals["strftime_now"] = lambda fmt: _FixedNow.now().strftime(fmt)
    return template


def render(source, variables):
    """{"out": text} or {"error": message, "kind": exception class}."""
    try:
        ctu_template = compile_template(source)
        text = ctu_template.render(**variables)
        text.encode("utf-8")
        return {"out": text}
    except (MemoryError, KeyboardInterrupt):
        raise
    except BaseException as e:  # noqa: BLE001 - whatever a template provokes
        return {"error": str(e), "kind": type(e).__name__}
