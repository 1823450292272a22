# selection.json: AICc of lme4's fit, variance inflation by car, and that of a binomial model from glmmTMB's covariance of
# the fixed effects (that of glmer is made of differences and good to 1e-3 only); Rubin's rules by mice, whose pool() takes
# estimates and standard errors of lme4's fits from a tidy() of our own; and every model of three terms, by lme4 with ML.
# Run in this directory: Rscript selection.R

suppressPackageStartupMessages({library(lme4); library(car); library(glmmTMB); library(mice)})
source("common.R")

m <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE)
k <- attr(logLik(m), "df"); n <- nobs(m)
l <- lmer(distance ~ age * Sex + (1 | Subject), as.data.frame(nlme::Orthodont))
g <- glmmTMB(cbind(incidence, size - incidence) ~ period + scale(size) + (1 | herd), cbpp, family = binomial)
R <- cov2cor(vcov(g)$cond[-1, -1]); own <- 1:3

tidy.lmerMod <- function(x, ...) {
  table <- coef(summary(x))
  data.frame(term = rownames(table), estimate = table[, 1], std.error = table[, 2])
}
fits <- lapply(1:5, function(i) {
  d <- sleepstudy
  rows <- seq(3, 180, by = 7)
  d$Reaction[rows] <- d$Reaction[rows] + 40 * sin(i * seq_along(rows))
  best_lmer(Reaction ~ Days + (1 | Subject), d)
})
found <- pool(fits, dfcom = df.residual(fits[[1]]))
table <- summary(found, conf.int = TRUE)
pooled <- list(estimate = table$estimate, std_error = table$std.error, df = table$df, statistic = table$statistic,
               p_value = table$p.value, lower = table[["2.5 %"]], upper = table[["97.5 %"]], riv = found$pooled$riv,
               lambda = found$pooled$lambda, fmi = found$pooled$fmi)

terms <- c("1", "Days", "z", "w", "Days + z", "Days + w", "z + w", "Days + z + w")
d <- sleepstudy
d$z <- sin(seq_len(180) * 1.7); d$w <- cos(seq_len(180) * 0.9)
subsets <- lapply(setNames(nm = terms), function(terms) {
  m <- best_lmer(as.formula(paste("Reaction ~", terms, "+ (1 | Subject)")), d, REML = FALSE)
  k <- attr(logLik(m), "df")
  c(k, logLik(m), AIC(m) + 2 * k * (k + 1) / (nobs(m) - k - 1))
})
write_reference("selection.json", list(
  versions = versions("lme4", "car", "glmmTMB", "mice"),
  aicc = AIC(m) + 2 * k * (k + 1) / (n - k - 1),
  vif = as.list(vif(l)),
  gvif = det(R[own, own]) * det(R[-own, -own, drop = FALSE]) / det(R),
  pooled = pooled, subsets = subsets))
