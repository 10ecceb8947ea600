"""What may be ordered from the page: buttons that stand beside what they are about, and the dialog that they open.

A button says which POST it stands for and what else is asked before (`data-ask`: until when, why, who, where).
`live.js` opens the dialog, asks for the token the first time, keeps it in its memory only, and sends. There are buttons
only where an order can be given over TCP at all, that is with `admin.token_file`; what is behind them decides by the
token alone.
"""

from html import escape
from typing import Any
from urllib.parse import quote


def may_order(status: dict[str, Any]) -> bool:
    """Whether orders are taken from whoever has the token."""
    return bool(status.get("orders"))


def button(path: str, word: str, says: str, asks: str = "") -> str:
    """One button: what it does in a word, and in a sentence for the dialog and for those who only hear it."""
    ask = f' data-ask="{asks}"' if asks else ""
    label = says if says.lower().startswith(word.lower()) else f"{word}: {says}"  # who says "click Reset" is heard
    return (
        f'<button type="button" class="act" data-path="{quote(path)}" data-says="{escape(says)}"{ask} '
        f'aria-label="{escape(label)}">{word}</button>'
    )


def row(status: dict[str, Any], *buttons: str) -> str:
    """Buttons side by side, where orders are taken."""
    return f'<p class="acts">{"".join(buttons)}</p>' if buttons and may_order(status) else ""


def of_breaker(one: dict[str, Any]) -> list[str]:
    """What may be done to a breaker in its state."""
    name, machine = str(one["name"]), one["machine"]
    path = f"/api/v1/breakers/{name}"
    end = "why by fleet" if one.get("fleet") else "why by"
    found = []
    if machine != "forced_open":
        found.append(button(f"{path}/open", "Open", f"Hold the breaker {name} open: refuse every call", f"for {end}"))
    if machine != "forced_closed":
        found.append(
            button(f"{path}/close", "Close", f"Hold the breaker {name} closed: let every call pass", f"for {end}")
        )
    if machine != "closed":
        found.append(button(f"{path}/reset", "Reset", f"Make the breaker {name} automatic again", end))
    return found


def of_incident(one: dict[str, Any]) -> list[str]:
    """What may be done to an open incident."""
    path = f"/api/v1/incidents/{one['id']}"
    found = []
    if not one["acknowledged_by"]:
        found.append(button(f"{path}/ack", "Acknowledge", f"Acknowledge {one['id']}: nobody else is told", "why by"))
    found.append(button(f"{path}/resolve", "Resolve", f"Resolve {one['id']}", "why by"))
    return found


def of_recovery(recovery: dict[str, Any]) -> list[str]:
    """Pause or resume it."""
    if recovery["paused"] is not None:
        return [button("/api/v1/recovery/resume", "Resume", "Resume recovery", "why by")]
    return [button("/api/v1/recovery/pause", "Pause", "Pause recovery: no rule acts", "why by")]


def of_program(status: dict[str, Any]) -> list[str]:
    """Drain it, or let it read its file again."""
    if status["state"] != "ready":
        return []
    return [
        button("/reload", "Reload", "Read the configuration again"),
        button("/drain", "Drain", "Drain: not ready any more, still serving. There is no way back"),
    ]


DIALOG = """<dialog id="order" aria-labelledby="order-says"><form>
<h2 id="order-says"></h2>
<label data-field="token">Token <input name="token" type="password" autocomplete="off" required></label>
<label data-field="for">For <select name="for"><option value="300">5 minutes</option>
<option value="900" selected>15 minutes</option><option value="3600">1 hour</option>
<option value="">until it is reset</option></select></label>
<label data-field="why">Why <input name="why" maxlength="500" autocomplete="off"></label>
<label data-field="by">Who <input name="by" maxlength="100" autocomplete="off"></label>
<label data-field="fleet"><input name="fleet" type="checkbox"> In all replicas</label>
<p id="order-failed" role="alert"></p>
<p class="acts"><button type="submit">Do it</button><button type="button" value="cancel">Cancel</button></p>
</form></dialog>
<p id="done" role="status"></p>"""
