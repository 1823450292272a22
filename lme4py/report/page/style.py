"""How the page looks: one column, wide tables scroll, dark where the reader's system is."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2126; --soft: #59626c; --rule: #d5d9de; --card: #f5f7f9;
  --blue: #0072B2; --orange: #D55E00; --light: #9CC9E3; --grey: #7F7F7F; --grid: #ebebeb; --axis: #b3b3b3; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e6e8ea; --soft: #a4adb6; --rule: #3a4048; --card: #1d2227;
    --blue: #56B4E9; --orange: #F28E4B; --light: #2F5F7E; --grey: #9AA1A8; --grid: #2a2f35; --axis: #5a626b; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0.2rem 0 0.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 0.6rem; padding-bottom: 0.25rem; border-bottom: 1px solid var(--rule); }
p, li { max-width: 46rem; }
.soft, figcaption, footer { color: var(--soft); } figcaption { position: sticky; left: 0; }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; margin: 0.8rem 0; }
a { color: var(--blue); }
code { overflow-wrap: anywhere; }
.model { background: var(--card); border-radius: 6px; padding: 0.8rem 1rem; overflow-x: auto;
  font-family: Cambria, "STIX Two Text", Georgia, serif; font-size: 1.08rem; }
.model p { margin: 0.35rem 0; max-width: none; } .model .name { font-style: italic; }
.lme4py, .scroll { overflow-x: auto; } .lme4py p { margin: 0.2rem 0; }
table { font-size: 0.93rem; }
ul.checks { list-style: none; padding: 0; }
ul.checks li { margin: 0.35rem 0; padding-left: 6.3rem; text-indent: -6.3rem; }
ul.checks .mark { display: inline-block; width: 6.3rem; text-indent: 0; font-weight: 600; }
.attention .mark { color: var(--orange); }
figure { margin: 1.4rem 0; overflow-x: auto; } figure svg { display: block; width: 100%; height: auto; }
figure svg text { fill: currentColor; }
footer { margin-top: 3rem; font-size: 0.9rem; border-top: 1px solid var(--rule); padding-top: 0.6rem; }
@media (max-width: 30rem) { .lme4py td:first-child { white-space: normal !important; }
  ul.checks li { padding-left: 5.6rem; text-indent: -5.6rem; } ul.checks .mark { width: 5.6rem; } }
@media print { nav { display: none; } figure, table { break-inside: avoid; } }
""".strip()
