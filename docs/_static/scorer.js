// Guides before the reference, the reference before the changelog.
var Scorer = {
  score: ([docname, title, anchor, descr, score]) => {
    if (docname.startsWith("changelog") || docname.startsWith("benchmarks")) return score - 30;
    if (docname.startsWith("generated/")) return score - 3;
    return score + 3;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
