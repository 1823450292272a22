# Multinomial logits without random effects: writes multinomial.json beside this folder.
#     Rscript tests/reference/make/multinomial.R
suppressPackageStartupMessages({library(jsonlite); library(nnet); library(ordinal)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
data(wine)
of <- function(m) {
  s <- summary(m)
  b <- if (is.matrix(coef(m))) as.vector(t(coef(m))) else coef(m)
  e <- if (is.matrix(s$standard.errors)) as.vector(t(s$standard.errors)) else s$standard.errors
  list(log_likelihood = as.numeric(logLik(m)), coefficients = unname(b), std_errors = unname(e))
}
wine$three <- factor(pmin(as.integer(wine$rating), 3))
tight <- function(formula, data)
  do.call(multinom, list(formula, data, reltol = 1e-14, abstol = 1e-14, maxit = 1000, trace = FALSE))
# Counts of three groups of ratings by judge, temperature and contact; multinom leaves out the multinomial coefficient.
cells <- aggregate(cbind(a = three == "1", b = three == "2", c = three == "3") ~ judge + temp + contact, wine, sum)
cells$judge <- as.numeric(cells$judge)
cells$z <- as.numeric(cells$temp) - 1
cells$q <- as.numeric(cells$contact) / 4
out <- list(
  counts = of(tight(cbind(a, b, c) ~ judge + contact, cells)),
  offset = of(tight(cbind(a, b, c) ~ judge + offset(cbind(cells$q, cells$z, 0 * cells$z)), cells)),
  cells = cells,
  contact = of(multinom(three ~ contact, wine, reltol = 1e-14, abstol = 1e-14, maxit = 1000, trace = FALSE)),
  both = of(multinom(contact ~ temp + response, wine, reltol = 1e-14, abstol = 1e-14, maxit = 1000, trace = FALSE))
)
write(toJSON(out, digits = 15, auto_unbox = TRUE, pretty = TRUE), file.path(here, "..", "multinomial.json"))
