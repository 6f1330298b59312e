#!/usr/bin/env python3
"""Writes the goldens of the chat-template engine, from Python's jinja2 as transformers sets it up.

usage: make.py TEMPLATE_DIR          (../shared/data/templates of the checkout; needs jinja2 and transformers)

conversations.json  what is said: name -> the variables of the template
templates.jsonl     one line a (template, conversation): the text, or the error
The templates themselves are their makers' and stay where they are. cases.jsonl (random small templates) is written by
diff.py --save."""
import copy
import json
import os
import sys
import warnings

warnings.simplefilter("ignore")

import reference  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Tells the weather, \"now\" & here — <soon>.",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "The city, e.g. Zürich"},
        "days": {"type": "integer", "description": " How many days ", "minimum": 1, "default": 3},
        "units": {"type": ["string", "integer"], "description": "units", "enum": ["°C", "°F"]}},
        "required": ["city"]}}}
ADD = {"type": "function", "function": {
    "name": "add", "description": "Adds numbers", "parameters": {"type": "object", "properties": {
        "xs": {"type": "array", "items": {"type": "number"}, "description": "numbers"},
        "opts": {"type": "object", "additionalProperties": {"type": "boolean"}, "description": "options"}}},
    "return": {"type": "number", "description": "the sum"}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def call(name, arguments, call_id="abc123def"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(text, call_id="abc123def", **more):
    return {"role": "tool", "content": text, "tool_call_id": call_id, **more}


ASKED = user("How is it in Zürich?\n")
CALLED = assistant(None, tool_calls=[call("get_weather", {"city": "Zürich", "days": 2, "lat": 47.0, "eps": 1e-7})])
CALLED_TEXT = assistant("", tool_calls=[call("get_weather", "{\"city\": \"Zürich\"}")])
TWO_CALLS = assistant("I look.", tool_calls=[call("add", {"xs": [1, 2.5]}), call("add", {"xs": []}, "zzzzzzzz9")])
RESULT = tool("{\"temp\": 21.5, \"sky\": \"klar ☀\"}")

CONVERSATIONS = {
    "plain": {"messages": [user("Hello!")]},
    "plain_no_prompt": {"messages": [user("Hello!")], "add_generation_prompt": False},
    "system": {"messages": [system("  Be brief.\n"), user("Who are you?")]},
    "turns": {"messages": [user("One?"), assistant("1"), user("Two?\n\n"), assistant("\n2 "), user("Three?")]},
    "system_turns": {"messages": [system("Count."), user("One?"), assistant("1"), user("Two?")]},
    "think_off": {"messages": [user("Hi")], "enable_thinking": False},
    "think_in_system": {"messages": [system("Be kind. /no_think"), user("Hi")]},
    "thoughts": {"messages": [user("2+2?"), assistant("<think>\nAdd.\n</think>\n\n4"), user("3+3?"),
                              assistant("6", reasoning_content="Double three.")], "add_generation_prompt": False},
    "thoughts_tail": {"messages": [user("2+2?"), assistant("<think>a</think>b<think>\nc\n</think>\n\nd")]},
    "unicode": {"messages": [system("Ünï"), user("漢字 🙂 \u2028 <|im_end|> \"q\" \\n")]},
    "tools": {"messages": [ASKED], "tools": [WEATHER]},
    "two_tools_system": {"messages": [system("Use tools."), ASKED], "tools": [WEATHER, ADD]},
    "tools_null": {"messages": [ASKED], "tools": None},
    "tools_empty": {"messages": [ASKED], "tools": []},
    "tool_call": {"messages": [ASKED, CALLED, RESULT], "tools": [WEATHER]},
    "tool_call_answered": {"messages": [ASKED, CALLED, RESULT, assistant("Nice."), user("Thanks")], "tools": [WEATHER]},
    "tool_call_text_arguments": {"messages": [ASKED, CALLED_TEXT, RESULT, assistant("Nice.")], "tools": [WEATHER]},
    "tool_call_blank": {"messages": [ASKED, {**CALLED, "content": ""}, RESULT, assistant("Nice.")], "tools": [WEATHER]},
    "tool_call_null_text": {"messages": [ASKED, {**CALLED_TEXT, "content": None}, RESULT, assistant("Nice.")]},
    "two_calls": {"messages": [ASKED, TWO_CALLS, tool("3.5"), tool("0", "zzzzzzzz9"), assistant("Done.")],
                  "tools": [ADD]},
    "tool_result_dict": {"messages": [ASKED, CALLED, tool({"temp": 21.0, "ok": True, "x": None})], "tools": [WEATHER]},
    "tools_in_system": {"messages": [ASKED], "tools": [WEATHER], "tools_in_user_message": False},
    "builtin_tools": {"messages": [ASKED, assistant(None, tool_calls=[call("brave_search", {"query": "Zürich"})])],
                      "builtin_tools": ["brave_search", "code_interpreter"], "date_string": "01 Jan 2025"},
    "bad_alternation": {"messages": [user("One"), user("Two")]},
    "bad_start": {"messages": [assistant("I begin.")]},
    "bad_role": {"messages": [user("Hi"), {"role": "narrator", "content": "Meanwhile"}]},
    "bad_call_id": {"messages": [ASKED, assistant(None, tool_calls=[call("add", {}, "short")])], "tools": [ADD]},
    "no_content": {"messages": [{"role": "user"}]},
    "null_content": {"messages": [user(None)]},
    "content_parts": {"messages": [user([{"type": "text", "text": "Hi"}])]},
    "empty": {"messages": []},
    "only_system": {"messages": [system("Alone.")], "tools": [WEATHER]},
}


def variables(conversation):
    return {"add_generation_prompt": True, **TOKENS, **conversation}


def main():
    directory = sys.argv[1]
    with open(os.path.join(HERE, "conversations.json"), "w", encoding="utf-8") as f:
        json.dump({k: variables(v) for k, v in CONVERSATIONS.items()}, f, ensure_ascii=False, indent=1)
        f.write("\n")
    with open(os.path.join(HERE, "templates.jsonl"), "w", encoding="utf-8") as f:
        for file in sorted(os.listdir(directory)):
            with open(os.path.join(directory, file), encoding="utf-8") as t:
                source = t.read()
            for name, conversation in CONVERSATIONS.items():
                got = reference.render(source, copy.deepcopy(variables(conversation)))
                f.write(json.dumps({"template": file, "conversation": name, **got}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
