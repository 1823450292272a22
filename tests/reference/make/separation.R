# separation.json: fits in which one level of f says nothing but zeros, by glmmTMB, lme4 and ordinal. Their optimisers
# stop on the way to infinity, where likelihood and everything but the coefficient of that level are at their limits.
# Run in this directory: Rscript separation.R

suppressPackageStartupMessages({library(glmmTMB); library(lme4); library(ordinal)})
source("common.R")

set.seed(1)
d <- data.frame(g = factor(rep(1:12, each = 9)), f = factor(rep(c("a", "b", "c"), 36)), x = round(rnorm(108), 3))
eta <- 0.4 + 0.5 * d$x + 0.6 * rnorm(12)[d$g]
d$count <- ifelse(d$f == "c", 0, rnbinom(108, size = 1.5, mu = exp(eta)))
d$yes <- ifelse(d$f == "c", 0, rbinom(108, 1, plogis(eta)))
d$rank <- ifelse(d$f == "c", 1, findInterval(eta + rlogis(108), c(-0.5, 1)) + 1)
d$rank <- factor(d$rank, ordered = TRUE)

kept <- function(loglik, table) {
  known <- !(rownames(table) %in% c("fc"))
  list(logLik = as.numeric(loglik), names = rownames(table)[known], estimate = unname(table[known, 1]),
       se = unname(table[known, 2]))
}
tmb <- function(response, family) {
  fit <- suppressWarnings(glmmTMB(as.formula(paste(response, "~ x + f + (1 | g)")), d, family = family))
  kept(fit$fit$objective * -1, summary(fit)$coefficients$cond)
}
cumulative <- suppressWarnings(clmm(rank ~ x + f + (1 | g), d, control = clmm.control(gradTol = 1e-8)))

write_reference("separation.json", list(
  about = paste("One level of zeros by", versions("glmmTMB", "ordinal")),
  data = lapply(d, function(column) if (is.factor(column)) as.character(column) else column),
  fits = list(
    poisson = tmb("count", poisson()), nbinomial = tmb("count", nbinom2()), nbinomial1 = tmb("count", nbinom1()),
    logit = tmb("yes", binomial()), probit = tmb("yes", binomial("probit")), cloglog = tmb("yes", binomial("cloglog")),
    ordinal = kept(cumulative$logLik, summary(cumulative)$coefficients))))
