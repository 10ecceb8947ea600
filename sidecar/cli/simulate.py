"""`sidecar simulate -c FILE SCENARIO`: what would have opened, when, and what the users would have seen."""

import argparse
import json
import sys

from sidecar.cli import exits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("scenario", nargs="?", metavar="SCENARIO", help="a file with phases of traffic and faults")
    parser.add_argument("--log", metavar="ACCESS_LOG", help="replay an access log of the proxy instead of a scenario")
    parser.add_argument("--compare", metavar="OTHER", help="a second configuration, run through the same")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="the seed of all chance (default: the scenario's, else 1)"
    )
    parser.add_argument("--svg", metavar="FILE", help="draw states and answers over time into this file")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    """Simulate; 0 done, 1 the drawing could not be written, 2 usage, 78 a file that cannot be used."""
    from sidecar.config.load import load
    from sidecar.simulate.access_log import read_log
    from sidecar.simulate.outcome import play, replay
    from sidecar.simulate.report import lines
    from sidecar.simulate.scenario import load_scenario

    if (args.scenario is None) == (args.log is None):
        print("sidecar simulate: give a SCENARIO or --log ACCESS_LOG, one of the two", file=sys.stderr)
        return exits.USAGE
    files = [args.config, *([args.compare] if args.compare else [])]
    configs = [load(file) for file in files]
    if args.scenario is not None:
        scenario = load_scenario(args.scenario, configs)
        title = scenario.about or args.scenario
        seed = scenario.seed if args.seed is None else args.seed
        results = [play(file, config, scenario, seed) for file, config in zip(files, configs, strict=True)]
    else:
        logged = read_log(args.log)
        title = args.log
        seed = 1 if args.seed is None else args.seed
        results = [replay(file, config, logged, seed) for file, config in zip(files, configs, strict=True)]
    seconds = results[0].seconds
    plain = [result.plain() for result in results]
    if args.json:
        whole = {"version": 1, "title": title, "seed": seed, "seconds": round(seconds, 6), "runs": plain}
        print(json.dumps(whole, indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(title, seconds, plain)))
    if args.svg is not None:
        from sidecar.simulate.plot import draw

        try:
            with open(args.svg, "w", encoding="utf-8") as stream:
                stream.write(draw(title, results))
        except OSError as error:
            print(f"{args.svg}: {error.strerror}", file=sys.stderr)
            return exits.FAILED
    return exits.OK
