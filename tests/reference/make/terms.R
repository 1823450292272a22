# terms.json: what R's terms.formula() says of each formula. Run in this directory: Rscript terms.R

source("common.R")

columns <- data.frame(y = 1, a = 1, b = 1, c = 1, d = 1)
formulas <- c(
  "y ~ 1", "y ~ 0", "y ~ a", "y ~ 0 + a", "y ~ a - 1", "y ~ a + 0", "y ~ -1 + a", "y ~ a - 0", "y ~ a - 1 + 1",
  "y ~ 1 + a - 1", "y ~ 0 - 1", "y ~ 0 + 1", "y ~ a - -1", "y ~ -(-1)", "y ~ a - (b - 1)", "y ~ a - (b + 1)",
  "y ~ (a - 1)", "y ~ a * (b - 1)", "y ~ (a + b + 0):c", "y ~ (1 + a):b", "y ~ (1 + a)^2", "y ~ a * 1", "y ~ a/1",
  "y ~ a:b", "y ~ 0 + a:b", "y ~ a + a:b", "y ~ a + b:a", "y ~ b:a + a", "y ~ a:b + a + b - 1", "y ~ a*b",
  "y ~ a*b*c", "y ~ 0 + a*b", "y ~ a*b - a", "y ~ a*b*c - a", "y ~ a*b*c - b", "y ~ a*b*c - a:b", "y ~ a*b*c - a - b",
  "y ~ a*b*c - b - a:c", "y ~ a:a", "y ~ a + a", "y ~ a + b - a", "y ~ a + b - a + a", "y ~ a:b - b:a", "y ~ -a",
  "y ~ a + -b", "y ~ +a", "y ~ a - +b", "y ~ a/b", "y ~ a/b/c", "y ~ (a + b)/c", "y ~ a/(b + c)", "y ~ a/(b * c)",
  "y ~ (a + b)/(c + d)", "y ~ (a * b)/c", "y ~ (a - 1)/b", "y ~ a %in% b", "y ~ b + a %in% b", "y ~ a + b %in% a",
  "y ~ (a + b) %in% c", "y ~ a %in% (b + c)", "y ~ a %in% b %in% c", "y ~ a*b %in% c", "y ~ a + b %in% c + a:b",
  "y ~ (a + b)^2", "y ~ (a + b + c)^2", "y ~ (a + b + c)^3", "y ~ (a + b + c + d)^3 - a:b", "y ~ (a:b + c + d)^2",
  "y ~ (a*b*c)^2", "y ~ (a/b)^2", "y ~ (a + b):(a + c)", "y ~ (a + b)*(c + d)", "y ~ a:(b/c)", "y ~ ((a + b)):c",
  "y ~ a:b:c", "y ~ a:b:c + b:c", "y ~ a:b:c + a + b:c", "y ~ 0 + a:b:c + a:b + c", "y ~ a:b + c:d + a:c:d",
  "y ~ c + a + b:a + c:b", "y ~ I(a^2) + I(a/2 + 1)", "y ~ log(a)*b", "y ~ poly(a, 2, raw = TRUE):b + b",
  "y ~ a > 4", "y ~ b + (a > 4)", "y ~ a == b + c", "y ~ !a", "y ~ a & b", "y ~ a%%b + c", "y ~ (a > 1):b + b",
  "y ~ offset(d) + a", "y ~ a + offset(log(d)) + b:a + offset(2 * c)", "log(y) ~ y + a", "cbind(y, a) ~ b*c",
  "y ~ .", "y ~ . - a", "y ~ (.)^2", "y ~ . * b", "y ~ .:b", "y ~ c:a + .", "log(y) ~ .", "cbind(y, b) ~ .",
  "I(y/b) ~ . + b", "y ~ log(b) + .", "y ~ a + . - .", "y ~ a + b*c/d - a:b + (b + d)^2",
  "y ~ (d + c %in% b)^2 * a - c", "y ~ 0 + d:c + (a/b + c)^2 - a", "y ~ d*c*b*a - d:b - a"
)
text <- function(e) paste(deparse(e, width.cutoff = 500), collapse = " ")
describe <- function(formula) {
  t <- terms(as.formula(formula), data = columns)
  variables <- vapply(as.list(attr(t, "variables"))[-1], text, "")
  factors <- attr(t, "factors")
  list(
    formula = formula,
    labels = I(attr(t, "term.labels")),
    variables = I(variables[-1]),
    factors = if (length(factors)) unname(factors[-1, , drop = FALSE]) else list(),
    intercept = attr(t, "intercept"),
    offsets = I(variables[attr(t, "offset")])
  )
}
result <- list(
  note = "R's terms.formula; factors: one row per right-hand variable, 1 = contrasts, 2 = one column per level",
  R = paste(R.version$major, R.version$minor, sep = "."),
  data_names = names(columns),
  formulas = lapply(formulas, describe)
)
lines <- toJSON(result, auto_unbox = TRUE, pretty = FALSE)
writeLines(gsub('{"formula"', '\n{"formula"', lines, fixed = TRUE), out_path("terms.json"))
