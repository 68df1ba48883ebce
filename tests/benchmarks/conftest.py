"""Prints under the table of times what the benchmarks put into ``extra_info``: rates, ratios to peers, cost curves."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item, call):
    if call.when == "call" and "benchmark" in getattr(item, "funcargs", {}):
        item.user_properties.extend(item.funcargs["benchmark"].extra_info.items())


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("benchmark_only"):
        return
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, [])]
    measured = [report for report in reports if report.when == "call" and report.user_properties]
    if measured:
        terminalreporter.section("measured in the same run")
    for report in measured:
        terminalreporter.write_line(report.nodeid.split("::")[-1])
        for key, value in report.user_properties:
            terminalreporter.write_line(f"  {key}: {value:.4g}" if isinstance(value, float) else f"  {key}: {value}")
