# selection.json: AICc of lme4's fit, variance inflation by car, and that of a binomial model from glmmTMB's covariance of
# the fixed effects (that of glmer is made of differences and good to 1e-3 only).
# Run in this directory: Rscript selection.R

suppressPackageStartupMessages({library(lme4); library(car); library(glmmTMB)})
source("common.R")

m <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE)
k <- attr(logLik(m), "df"); n <- nobs(m)
l <- lmer(distance ~ age * Sex + (1 | Subject), as.data.frame(nlme::Orthodont))
g <- glmmTMB(cbind(incidence, size - incidence) ~ period + scale(size) + (1 | herd), cbpp, family = binomial)
R <- cov2cor(vcov(g)$cond[-1, -1]); own <- 1:3
write_reference("selection.json", list(
  versions = versions("lme4", "car", "glmmTMB"),
  aicc = AIC(m) + 2 * k * (k + 1) / (n - k - 1),
  vif = as.list(vif(l)),
  gvif = det(R[own, own]) * det(R[-own, -own, drop = FALSE]) / det(R)))
