# transforms.json: functions of formulas, factors and contrasts as R computes them.
# Run in this directory: Rscript transforms.R

suppressPackageStartupMessages(library(splines))
source("common.R")

data <- list(
  x = c(0.3, 1.1, 2.5, 2.5, 3.7, 4.2, 5.9, 6.4, 8.8, 10),
  new = c(0.5, 2.5, 4, 7.7, 9.9),
  far = c(-1, 0.3, 5, 10, 12.5),
  year = c(2001, 2002, 2003, 2004, 2005, 2006, 2007, 2008, 2009, 2010),
  f = c("b", "a", "c", "a", "b", "c", "d", "a", "b", "d"),
  z = c(-1.5, 2.25, 0.15, -0.35, 3, -2, 0.5, 1.5, 2.5, -2.675),
  p = c(0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.999),
  k = c(1, 2, 4, 1, 2, 4, 1, 2, 4, 4))
columns <- as.data.frame(data[c("x", "year", "f", "z", "p", "k")], stringsAsFactors = TRUE)
columns$b <- columns$x > 3

numeric_calls <- c(
  "I(x^2)", "log(x)", "log(x, base = 2)", "log(x, 3)", "log2(x)", "log10(x)", "log1p(x)", "exp(z)", "expm1(z)",
  "sqrt(x)", "abs(z)", "sin(z)", "cos(z)", "tan(z)", "asin(p)", "acos(p)", "atan(z)", "sinh(z)", "cosh(z)",
  "tanh(z)", "floor(z)", "ceiling(z)", "round(z)", "round(z, 1)", "round(z, 2)", "round(x * 37, -1)", "sign(z)",
  "trunc(z)", "pmin(x, z)", "pmax(x, 3, z)", "ifelse(x > 3, log(x), -z)", "is.na(x)", "as.numeric(b)",
  "as.integer(z)", "qlogis(p)", "plogis(z)", "pnorm(z)", "qnorm(p)", "pnorm(z, 1, 2)",
  "qnorm(p, mean = 1, sd = 2)", "plogis(z, scale = 2)", "z %% 2", "z %/% 2", "z %% -0.7", "-z^2", "x > 3 & z < 1",
  "x > 3 | z < 1", "!b", "f == \"a\"", "f %in% c(\"a\", \"d\")", "k %in% 1:2", "x - mean(x)",
  "(x - median(x)) / sd(x)", "x / max(x) - min(x) + var(x)", "x > quantile(x, 0.3)", "2 * pi * x",
  "poly(x, 1, raw = TRUE)", "poly(x, 3, raw = TRUE)", "scale(x)", "scale(x, center = FALSE)",
  "scale(x, scale = FALSE)", "scale(x, 2, 3)", "cbind(x, z)", "as.numeric(f)")

trained_calls <- c(
  "poly(x, 2)", "poly(x, degree = 4)", "poly(year, 3)", "bs(x)", "bs(x, df = 5)",
  "bs(x, df = 6, intercept = TRUE)", "bs(x, knots = c(3, 6))", "bs(x, degree = 2, df = 4)",
  "bs(x, degree = 1, knots = 5)", "bs(x, knots = c(3, 6), Boundary.knots = c(0, 11))",
  "bs(x, df = 5, Boundary.knots = c(1, 9))", "ns(x)", "ns(x, df = 2)", "ns(x, df = 4)",
  "ns(x, df = 4, intercept = TRUE)", "ns(x, knots = c(3, 6))", "ns(x, knots = 5, Boundary.knots = c(1, 9))",
  "ns(x, df = 3, Boundary.knots = c(-1, 12))", "ns(year, df = 3)", "ns(pmax(x, 4), df = 5)",
  "bs(pmax(x, 4), df = 6)", "scale(x)", "scale(x, scale = FALSE)")

factor_calls <- c(
  "factor(k)", "factor(k, levels = c(4, 2, 1))", "factor(k, labels = c(\"lo\", \"mid\", \"hi\"))",
  "factor(f, levels = c(\"d\", \"c\", \"b\", \"a\"), labels = c(\"one\", \"two\", \"one\", \"three\"))",
  "relevel(f, ref = \"c\")", "relevel(f, 2)", "cut(x, 3)", "cut(x, 4, labels = c(\"a\", \"b\", \"c\", \"d\"))",
  "cut(x, c(0, 2.5, 5, 10))", "cut(x, c(0, 2.5, 5, 10.5), right = FALSE)",
  "cut(x, c(0.3, 2.5, 10), include.lowest = TRUE)",
  "cut(x, c(0.3, 2.5, 10), right = FALSE, include.lowest = TRUE)", "cut(x, c(-Inf, 1/3, 2/3, Inf))",
  "cut(x, c(0, Inf))", "cut(2 + 0 * x, 3)", "cut(x * 1000, 3)", "cut(x, c(0, 3.00001, 3.00002, 11))",
  "cut(x, 3, dig.lab = 5)", "cut(x / 1e5, 2)", "cut(x, quantile(x, c(0, 0.5, 1)), include.lowest = TRUE)",
  "cut(x, breaks = seq(0, 10, by = 2.5))", "interaction(f, k)", "interaction(f, k, drop = TRUE)",
  "interaction(f, k, sep = \":\", lex.order = TRUE)", "interaction(k, f, b)", "droplevels(f)", "as.factor(k)",
  "as.factor(b)", "ordered(k)", "ordered(f, levels = c(\"d\", \"a\", \"b\", \"c\"))", "as.ordered(f)",
  "ifelse(x > 3, \"up\", \"down\")", "factor(x > 3)", "factor(as.character(k))")

value_of <- function(call, frame = columns) quiet(eval(str2lang(call), frame))

numeric_case <- function(call) list(call = call, values = unname(apply(as.matrix(value_of(call)) + 0, 2, as.numeric)))

# The basis is that of the first rows; it is evaluated at new ones as predict() does it.
trained_case <- function(call) {
  variable <- all.vars(str2lang(call))
  fit <- model.frame(as.formula(paste("~", call)), columns)
  at <- function(values) {
    new <- setNames(list(values), variable)
    plain(quiet(model.frame(terms(fit), as.data.frame(new)))[[1]])
  }
  plain <- function(x) unname(matrix(as.numeric(x), NROW(x)))
  moved <- function(x) if (variable == "year") 1990 + 4 * x else x
  list(call = call, train = plain(fit[[1]]), new = at(moved(data$new)), far = at(moved(data$far)))
}

factor_case <- function(call) {
  found <- value_of(call)
  if (!is.factor(found)) found <- factor(found)
  list(call = call, codes = vec(as.integer(found) - 1L), levels = vec(levels(found)), ordered = is.ordered(found))
}

contrast_case <- function(kind, n) list(kind = kind, n = n, matrix = unname(switch(kind,
  contr.diff = MASS::contr.sdif(n), `contr.treatment(2)` = contr.treatment(n, base = 2),
  as.matrix(get(kind)(n)))))

kinds <- c("contr.treatment", "contr.sum", "contr.helmert", "contr.poly", "contr.SAS", "contr.diff")
contrasts <- unlist(lapply(kinds, function(kind) lapply(c(2, 3, 5, 12), function(n) contrast_case(kind, n))), recursive = FALSE)

write_reference("transforms.json", list(
  data = lapply(data, vec), numeric = lapply(numeric_calls, numeric_case), trained = lapply(trained_calls, trained_case),
  factors = lapply(factor_calls, factor_case), contrasts = c(contrasts, list(contrast_case("contr.treatment(2)", 4)))))
